"""The output of verbs in pipes, on terminals, and as JSON."""

import io
import json
import re
import sys

import pytest
from intaglio.cli.progress import progress
from intaglio.cli.show import print_facts, print_json, print_rows
from intaglio.cli.sizes import size

ROWS = [("good", 0.98765, "a\tfine\nfilm \x1b[31m"), ("[bold]", 0.5, "ü")]


class Terminal(io.StringIO):
    @property
    def encoding(self) -> str:  # type: ignore[override]
        return "utf-8"

    def isatty(self) -> bool:
        return True


def test_rows_in_a_pipe_are_tab_separated_lines(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows(("label", "score", "text"), ROWS)
    assert capsys.readouterr().out == "good\t0.9877\ta\\tfine\\nfilm \\e[31m\n[bold]\t0.5000\tü\n"


def test_rows_on_a_terminal_are_aligned_under_a_header(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("TERM", "dumb")
    print_rows(("label", "score", "text"), ROWS)
    lines = [line.rstrip() for line in re.sub(r"\x1b\[[0-9;]*m", "", terminal.getvalue()).splitlines()]
    assert lines == ["label    score  text", "good    0.9877  a\\tfine\\nfilm \\e[31m", "[bold]  0.5000  ü"]


def test_no_rows(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows(("a", "b"), [])
    assert capsys.readouterr().out == ""


def test_facts_share_a_column(capsys: pytest.CaptureFixture[str]) -> None:
    print_facts([("model", "qwen2"), ("", "more"), ("a", "")])
    assert capsys.readouterr().out == "model  qwen2\n       more\na\n"


@pytest.mark.parametrize(("encoding", "letter"), [("utf-8", "ü".encode()), ("ascii", b"\\u00fc")])
def test_json_is_valid_in_every_encoding(monkeypatch: pytest.MonkeyPatch, encoding: str, letter: bytes) -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding)
    monkeypatch.setattr(sys, "stdout", stream)
    print_json({"text": "ü"})
    stream.flush()
    assert letter in raw.getvalue()
    assert json.loads(raw.getvalue()) == {"text": "ü"}


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (988_065_536, "988 MB"),
        (999_600, "1 MB"),
        (999_600_000, "1.00 GB"),
        (1_976_131_072, "1.98 GB"),
        (1_234_567_890_123, "1,234.57 GB"),
    ],
)
def test_sizes(count: int, words: str) -> None:
    assert size(count) == words


def test_progress_is_silent_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    with progress() as report:
        report("weights", 1, 2)
    assert capsys.readouterr() == ("", "")


def test_progress_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    with progress() as report:
        report("graph", 3, 24)
        report("weights", 0, 2_000_000)
        report("weights", 1_500_000, 2_000_000)
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", terminal.getvalue())
    assert re.search(r"graph .* 3 / 24 ", text)
    assert re.search(r"weights .* 1.5 MB / 2 MB ", text)
