"""The arguments of ``optimum-cli export intaglio``, made from the options of ``intaglio export`` and ``quantize``.

optimum reads arguments with argparse. It checks nothing here but that an option exists: what was given goes on as it is
to the verb's own command, so that values, messages and exit codes are intaglio's.
"""

import argparse
from collections.abc import Iterator, Sequence
from typing import Any

import click

from ..cli.main import Guarded, prepare_process
from ..cli.verbs import export, quantize

NAME = "intaglio"
HELP = "Export Qwen2, Qwen2-MoE and EXAONE 4.0 checkpoints to ONNX artifacts, quantize them, and check them."
PROGRAM = "optimum-cli export"

GIVEN = "intaglio_options"
POSITIONAL = ("source", "out")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add SOURCE, OUT, and every option of ``intaglio export``; in a group of their own those of ``quantize`` alone."""
    parser.usage = f"{PROGRAM} {NAME} SOURCE OUT [options]"
    parser.description = _escaped(_first_paragraph(export.command))
    parser.allow_abbrev = False  # as click
    parser.set_defaults(**{GIVEN: ()})
    for name in POSITIONAL:
        parser.add_argument(name, metavar=name.upper())
    _add_options(parser, export.command, _options(export.command))
    known = _flags(export.command)
    quantization = parser.add_argument_group(
        "quantization",
        "With any of these, the export is that of `intaglio quantize`: --precision is int4 (the default) or int8.",
    )
    _add_options(quantization, quantize.command, (o for o in _options(quantize.command) if not known & {*o.opts}))


def run(arguments: argparse.Namespace) -> None:
    """Run the verb with what was given, and end the process with its exit code."""
    given: Sequence[str] = getattr(arguments, GIVEN)
    flags = {option.partition("=")[0] for option in given}
    command = export.command if flags <= _flags(export.command) else quantize.command
    prepare_process()
    group = Guarded("export", commands={NAME: command})
    group([NAME, *given, "--", *(getattr(arguments, name) for name in POSITIONAL)], prog_name=PROGRAM)


class _Pass(argparse.Action):
    """Keeps an option as it was given."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        given = option_string if self.nargs == 0 else f"{option_string}={values}"
        setattr(namespace, self.dest, (*getattr(namespace, self.dest), given))


def _add_options(
    to: "argparse._ActionsContainer",  # pyright: ignore[reportPrivateUsage]
    command: click.Command,
    options: "Iterator[click.Option]",
) -> None:
    context = click.Context(command)
    for option in options:
        record = option.get_help_record(context)
        assert record is not None, option.name
        shown, help_text = record
        to.add_argument(
            *option.opts,
            *option.secondary_opts,
            action=_Pass,
            dest=GIVEN,
            default=argparse.SUPPRESS,
            nargs=0 if option.is_flag else None,
            metavar=None if option.is_flag else shown.partition(" ")[2],
            help=_escaped(help_text),
        )


def _options(command: click.Command) -> Iterator[click.Option]:
    """Yield a command's options, without ``--help``."""
    return (parameter for parameter in command.params if isinstance(parameter, click.Option))


def _flags(command: click.Command) -> set[str]:
    return {flag for option in _options(command) for flag in (*option.opts, *option.secondary_opts)}


def _first_paragraph(command: click.Command) -> str:
    return (command.help or "").partition("\n\n")[0]


def _escaped(text: str) -> str:
    """Return a text that argparse does not take for a format."""
    return text.replace("%", "%%")
