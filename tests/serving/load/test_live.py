"""``intaglio bench --serve`` against a running server."""

import json
import math
import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from intaglio.cli.main import cli

PERCENTILES = ("p50", "p90", "p99", "max")


def bench(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["bench", *map(str, arguments)])


def measured(server: str, *arguments: object) -> dict[str, object]:
    found = bench("--serve", server, "--model", "qwen2", "--json", *arguments)
    assert found.exit_code == 0, found.stderr
    return dict(json.loads(found.stdout))


def test_a_closed_loop_measures_all_requests(server: str, tmp_path: Path) -> None:
    figure = tmp_path / "load.svg"
    lengths = ("--prompt-tokens", 100, "--new-tokens", 8, "--prefix-tokens", 80)
    found = measured(server, "--clients", 2, "--requests", 6, *lengths, "--plot", figure)
    assert (found["requests"], found["completed"], found["errors"]) == (6, 6, {})
    assert found["output_tokens"] == 6 * 8  # ignore_eos
    assert found["prompt_tokens"] == pytest.approx(6 * 180, rel=0.15)
    assert int(str(found["cached_tokens"])) >= 6 * 64  # the warm-up has left the shared beginning
    for name in ("first_token_seconds", "token_gap_seconds", "per_token_seconds", "end_to_end_seconds"):
        times = found[name]
        assert isinstance(times, dict)
        ordered = [times[key] for key in PERCENTILES]
        assert ordered == sorted(ordered), name
        assert ordered[0] >= 0
    assert "<svg" in figure.read_text(encoding="utf-8")


def test_an_open_loop_and_completions(server: str) -> None:
    found = measured(server, "--rate", 20, "--requests", 5, "--prompt-tokens", 20, "--new-tokens", 4, "--completions")
    assert (found["rate"], found["clients"], found["completed"]) == (20.0, None, 5)
    assert found["output_tokens"] == 5 * 4
    assert math.isfinite(float(str(found["output_tokens_per_second"])))


def test_prompts_of_a_file_and_what_is_printed(server: str, tmp_path: Path) -> None:
    file = tmp_path / "prompts"
    file.write_text("The sea\nThe hill\n", encoding="utf-8")
    found = bench(
        "--serve", f"{server}/v1/", "--model", "exaone4", "--dataset", file, "--requests", 3, "--new-tokens", 4
    )
    assert found.exit_code == 0, found.stderr
    assert "answered   3 of 3 in" in found.stdout
    assert re.search(r"^speed      [\d.,]+ tokens/s, [\d.,]+ with prompts; [\d.]+ requests/s$", found.stdout, re.M)
    assert re.search(r"^first token(\t[\d.,]+){5}$", found.stdout, re.M)


def test_a_server_that_answers_nothing_is_an_error(server: str) -> None:
    found = bench("--serve", server, "--model", "qwen2", "--requests", 2, "--prompt-tokens", 100_000)
    assert found.exit_code == 2
    assert "failed     2 × 400 (" in found.stdout
    assert f"{server} answered none of 2 requests: 2 × 400" in found.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rate", "2"], "--rate is for a server; give its address with --serve URL"),
        (["--plot", "a.svg", "out"], "--plot is for a server"),
        (["--completions"], "--completions is for a server"),
        ([], "there is nothing to measure; give an ARTIFACT, or a server's address with --serve URL"),
        (["--serve", "here"], "--serve here: this is not an address; give one as http://127.0.0.1:8000"),
        (["--serve", "http://x", "out"], "--serve measures a server, and an ARTIFACT is of an artifact; leave out one"),
        (["--serve", "http://x", "--threads", "2"], "and --threads is of an artifact"),
        (["--serve", "http://x", "--rate", "1", "--clients", "2"], "--rate and --clients exclude each other"),
        (["--serve", "http://x", "--requests", "1", "--duration", "2"], "--requests and --duration exclude each other"),
        (["--serve", "http://x", "--dataset", "f", "--prompt-tokens", "2"], "--dataset and --prompt-tokens exclude"),
        (["--serve", "http://127.0.0.1:1"], "http://127.0.0.1:1 does not answer: All connection attempts failed"),
    ],
)
def test_options_that_do_not_fit_are_named(arguments: list[str], message: str) -> None:
    found = bench(*arguments)
    assert found.exit_code == 2
    assert message in found.stderr


def test_several_models_need_a_name(server: str) -> None:
    found = bench("--serve", server)
    assert found.exit_code == 2
    assert re.search(r"has the models qwen2, .*, sst2.*; give one of them with --model", found.stderr)
