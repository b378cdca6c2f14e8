"""The output of verbs in pipes, on terminals, and as JSON."""

import io
import json
import logging
import re
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from intaglio.cli import show
from intaglio.cli.main import cli
from intaglio.cli.parity_report import note
from intaglio.cli.progress import progress
from intaglio.cli.show import console, echo, print_facts, print_json, print_rows, protect_terminal
from intaglio.cli.sizes import size
from intaglio.tests.cli.conftest import FakeTerminal
from rich.cells import cell_len

ROWS = [("good", 0.98765, "a\tfine\nfilm \x1b[31m"), ("[bold]", 0.5, "ü")]


def test_rows_in_a_pipe_are_tab_separated_lines(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows(("label", "score", "text"), ROWS)
    assert capsys.readouterr().out == "good\t0.9877\ta\\tfine\\nfilm \\e[31m\n[bold]\t0.5000\tü\n"


def test_rows_on_a_terminal_are_aligned_under_a_header(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = FakeTerminal()
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


def test_facts_are_wrapped_to_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = FakeTerminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("COLUMNS", "40")
    labels = ", ".join(f"label {index}" for index in range(12))
    print_facts(
        [
            ("labels", labels),
            ("한국어", "서울은 한국의 수도이고 부산은 항구이다, 그리고 더 길다"),
            ("path", "/" + "x" * 60),
        ]
    )
    lines = terminal.getvalue().splitlines()
    assert lines[0] == "labels  label 0, label 1, label 2, label"
    assert all(line.startswith(" " * 8) for line in lines[1:4])
    assert " ".join(line[8:] for line in lines[:5] if line[0] in "l ") == labels
    assert max(cell_len(line) for line in lines if "x" * 60 not in line) <= 40
    assert lines[-1].endswith("/" + "x" * 60)


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
    terminal = FakeTerminal()
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


HOSTILE = "\x1b]0;title\x07 \x9b2J \x9d0;x\x9c \x7f \x0b end"
SHOWN = "␛]0;title␇ ␛[2J ␛]0;x␛\\ ␡ ␋ end"
CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def warn() -> None:
    warnings.warn(HOSTILE, stacklevel=1)


def log() -> None:
    logger = logging.Logger("hostile")
    logger.addHandler(logging.StreamHandler(sys.stderr))
    logger.error(HOSTILE)


def table() -> None:
    print_rows(("label", "text"), [(HOSTILE, HOSTILE)])
    console().print(HOSTILE, style="bold")


def command_line(*arguments: str) -> None:
    with pytest.raises(SystemExit):
        cli.main([*arguments])


PRINTED: dict[str, Callable[[], None]] = {
    "echo": lambda: echo(HOSTILE, fg="red"),
    "error output": lambda: echo(HOSTILE, err=True),
    "facts": lambda: print_facts([(HOSTILE, HOSTILE)]),
    "a table": table,
    "a note": lambda: note(HOSTILE),
    "a line of several": lambda: sys.stdout.writelines([HOSTILE, "\n"]),
    "a warning": warn,
    "a log line": log,
    "an error of the command line": lambda: command_line(HOSTILE),
    "an error": lambda: command_line("verify", HOSTILE),
}


@pytest.mark.filterwarnings("always")
@pytest.mark.parametrize("name", PRINTED)
def test_nothing_that_is_printed_controls_the_terminal(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    out, err = FakeTerminal(), FakeTerminal()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    monkeypatch.setattr(warnings, "showwarning", lambda message, *_: sys.stderr.write(f"{message}\n"))
    monkeypatch.setenv("COLUMNS", "200")
    protect_terminal()
    PRINTED[name]()
    text = COLOURS.sub("", out.getvalue() + err.getvalue())
    assert not CONTROLS.search(text)
    assert any(shown in text for shown in (SHOWN, f"\\e{SHOWN[1:]}", "\\x1b]0;title\\x07"))  # or as Python shows it


def test_a_pipe_gets_the_bytes_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    protect_terminal()
    echo(HOSTILE)
    print_facts([("a", HOSTILE)])
    assert capsys.readouterr().out == f"{HOSTILE}\na  {HOSTILE}\n"


def test_json_on_a_terminal_means_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = FakeTerminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    print_json({"text": HOSTILE})
    assert not CONTROLS.search(terminal.getvalue())
    assert json.loads(terminal.getvalue()) == {"text": HOSTILE}


def test_a_librarys_progress_bar_keeps_its_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    from tqdm import tqdm

    terminal = FakeTerminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    protect_terminal()
    for position in range(2):
        with tqdm(total=2, position=position, desc="\x1b[31mfile\r", leave=False) as bar:
            bar.update(1)
    text = terminal.getvalue().replace("\x1b[A", "").replace("\r", "")
    assert not CONTROLS.search(text)
    assert "␛[31mfile␍" in text


def test_only_one_module_prints() -> None:
    folder = Path(show.__file__).parent
    for path in folder.rglob("*.py"):
        if path.name != "show.py":
            assert not re.search(r"click\.s?echo|click\.style|rich\.console|(?<![.\w])print\(", path.read_text()), path
