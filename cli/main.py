"""The ``intaglio`` command: imports the module of a verb when it is used, and turns errors into messages.

Exit codes: 0 success; 1 a check failed; 2 bad usage or bad input; 130 interrupted (SIGINT);
141 the reader of a pipe closed it (SIGPIPE); 143 terminated (SIGTERM).
"""

import contextlib
import os
import signal
import sys
import warnings
from importlib import import_module
from typing import Any, NoReturn, TextIO

import click

from .. import __version__
from ..errors import IntaglioError, IntaglioWarning
from ..known_options import nearest
from .show import echo, protect_terminal

VERBS = (
    "export",
    "quantize",
    "parity",
    "inspect",
    "verify",
    "generate",
    "chat",
    "score",
    "classify",
    "tag",
    "answer",
    "embed",
    "bench",
    "serve",
    "batch",
    "card",
    "push",
)
FOLDERS = {"batch": "serving", "serve": "serving"}
"""The folders of ``cli/verbs`` that verbs are in; the others are in itself."""


class Guarded(click.Group):
    """A group whose commands end in a message and an exit code where they raise what the user can correct."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except IntaglioError as error:
            _fail(ctx, str(error), error.exit_code)
        except KeyboardInterrupt:
            echo("interrupted", err=True)
            ctx.exit(130)
        except BrokenPipeError:
            _drop_stdout()
            ctx.exit(141)
        except OSError as error:
            # A file that cannot be opened is the user's to fix; an OSError without a file name is a bug.
            if error.filename is None:
                raise
            _fail(ctx, f"{error.filename}: {error.strerror}", 2)


class Verbs(Guarded):
    """Imports the module of a verb on demand. A verb imports torch and onnxruntime only when it runs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        module = ".".join(["", "verbs", *([FOLDERS[cmd_name]] if cmd_name in FOLDERS else []), cmd_name])
        command: click.Command = import_module(module, __package__).command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in VERBS and not args[0].startswith("-") and (near := nearest(args[0], VERBS)):
            ctx.fail(f"No such command {args[0]!r}; did you mean {near!r}?")
        return super().resolve_command(ctx, args)


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="intaglio")
def cli() -> None:
    """Export Qwen2, Qwen2-MoE and EXAONE 4.0 checkpoints to ONNX, quantize, run and verify them.

    A SOURCE is a checkpoint: a local folder or a hub id (org/name, or org/name@revision). An ARTIFACT is a folder that
    `intaglio export` or `intaglio quantize` has written.
    """


def main() -> None:
    """Run the command line; the entry point of the installed command."""
    prepare_process()
    cli()


def prepare_process() -> None:
    """Set up signals, standard streams and warnings for a process that runs commands."""
    # SIGTERM raises SystemExit, so that temporary folders are removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    protect_terminal()
    warnings.showwarning = _show_warning
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


def _fail(ctx: click.Context, message: str, exit_code: int) -> NoReturn:
    echo(f"Error: {message}", err=True)
    ctx.exit(exit_code)


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Print a warning of intaglio without the place in its code, and those of libraries as Python does."""
    if issubclass(category, IntaglioWarning):
        echo(f"Warning: {message}", err=True)
    else:
        sys.stderr.write(warnings.formatwarning(message, category, filename, lineno, line))


def _drop_stdout() -> None:
    """Redirect standard output to the null device: flushing the closed pipe at exit would print an error."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
