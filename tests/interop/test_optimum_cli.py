"""`optimum-cli export intaglio`: its options are those of the verbs, and what is given reaches them unchanged."""

import argparse
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from intaglio.cli.verbs import export, quantize
from intaglio.interop import optimum_cli


@pytest.fixture
def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("optimum-cli")
    optimum_cli.add_arguments(parser)
    return parser


def flags(*commands: click.Command) -> Iterator[str]:
    for command in commands:
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                yield from (*parameter.opts, *parameter.secondary_opts)


def test_every_option_of_export_and_quantize_is_there_and_no_other(parser: argparse.ArgumentParser) -> None:
    known = {flag for action in parser._actions for flag in action.option_strings}
    assert known == {*flags(export.command, quantize.command), "-h", "--help"}
    positional = [action.dest for action in parser._actions if not action.option_strings]
    assert positional == [
        parameter.name for parameter in export.command.params if isinstance(parameter, click.Argument)
    ]


def test_the_help_has_the_words_of_the_verbs(parser: argparse.ArgumentParser) -> None:
    shown = " ".join(parser.format_help().split())
    assert shown.startswith("usage: optimum-cli export intaglio SOURCE OUT [options] Export the checkpoint SOURCE")
    assert "--precision [auto|fp32|fp16|bf16|int8|int4] Precision of the weights. `auto` keeps those of" in shown
    options, quantization = shown.split("quantization:")
    assert "--target [ort|standard]" in options
    assert "--method [auto|rtn|gptq|awq|smoothquant]" in quantization
    assert "[default: auto]" in quantization


@pytest.mark.parametrize(
    ("given", "verb", "passed"),
    [
        (["tiny", "out"], export, {"source": "tiny", "out": Path("out"), "precision": "auto"}),
        (["--precision", "int4", "--force", "tiny", "--target=standard", "out"], export, {"precision": "int4"}),
        (["tiny", "out", "--keep", "*.0.*=int8", "--keep=lm_head=float"], quantize, {"precision": "int4"}),
        (["tiny", "out", "--target-kl", "0.5", "--precision=int8"], quantize, {"target_kl": 0.5, "precision": "int8"}),
        (["--json", "--", "-tiny", "out"], export, {"source": "-tiny", "as_json": True}),
    ],
)
def test_what_is_given_reaches_the_verb(
    parser: argparse.ArgumentParser,
    monkeypatch: pytest.MonkeyPatch,
    given: list[str],
    verb: object,
    passed: dict[str, object],
) -> None:
    found: dict[str, object] = {}
    for module in (export, quantize):
        monkeypatch.setattr(module.command, "callback", lambda *, of=module, **values: found.update(values, verb=of))
    monkeypatch.setattr(optimum_cli, "prepare_process", lambda: None)
    with pytest.raises(SystemExit) as end:
        optimum_cli.run(parser.parse_args(given))
    assert end.value.code == 0
    assert found.items() >= {"verb": verb, **passed}.items()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            ["no-folder", "out"],
            "Error: no-folder: there is no such folder, and it is not a hub id either "
            "(organisation/name, such as Qwen/Qwen2-0.5B-Instruct); check the spelling\n",
        ),
        (
            ["tiny", "out", "--precision", "int9"],
            "Usage: optimum-cli export intaglio [OPTIONS] SOURCE OUT\n"
            "Try 'optimum-cli export intaglio --help' for help.\n\n"
            "Error: Invalid value for '--precision': 'int9' is not one of 'auto', 'fp32', 'fp16', 'bf16', 'int8', "
            "'int4'.\n",
        ),
        (
            ["tiny", "out", "--method", "gptq", "--precision", "fp16"],
            "Usage: optimum-cli export intaglio [OPTIONS] SOURCE OUT\n"
            "Try 'optimum-cli export intaglio --help' for help.\n\n"
            "Error: Invalid value for '--precision': 'fp16' is not one of 'int4', 'int8'.\n",
        ),
    ],
)
def test_errors_are_the_verbs_own(
    parser: argparse.ArgumentParser,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    given: list[str],
    message: str,
) -> None:
    monkeypatch.setattr(optimum_cli, "prepare_process", lambda: None)
    with pytest.raises(SystemExit) as end:
        optimum_cli.run(parser.parse_args(given))
    assert end.value.code == 2
    assert capsys.readouterr() == ("", message)


def test_options_are_not_abbreviated(parser: argparse.ArgumentParser, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parser.parse_args(["tiny", "out", "--prec", "int4"])
    assert "unrecognized arguments: --prec int4" in capsys.readouterr().err
