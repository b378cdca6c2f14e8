"""Progress bars on a terminal, and the time of each stage."""

import io
import sys

import pytest
from intaglio.cli.progress import Stopwatch, amount, both, progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stage", "done", "total", "words"),
    [
        ("graph", 1, 2, "1 / 2"),
        ("sensitivity", 7, 48, "7 / 48"),
        ("calibration", 2048, 16384, "12 %"),
        ("calibration", 16384, 16384, "100 %"),
        ("calibration", 0, 0, "100 %"),
        ("weights", 1_200_000, 3_400_000_000, "1.2 MB / 3.40 GB"),
        ("files", 10, 20, "10 B / 20 B"),
    ],
)
def test_progress_is_formatted_by_stage(stage: str, done: int, total: int, words: str) -> None:
    assert amount(stage, done, total) == words


def test_the_time_since_the_last_report_belongs_to_the_stage_that_reports() -> None:
    times = iter([10.0, 11.0, 13.0, 13.5, 14.0, 20.0])
    watch = Stopwatch(lambda: next(times))
    for stage in ("sensitivity", "sensitivity", "graph", "weights", "graph"):
        watch(stage, 1, 2)
    assert watch.seconds == {"sensitivity": 3.0, "graph": 6.5, "weights": 0.5}
    assert list(watch.seconds) == ["sensitivity", "graph", "weights"]


def test_both_receive_a_report() -> None:
    received: list[tuple[str, int, int]] = []
    watch = Stopwatch(lambda: 0.0)
    both(watch, lambda *report: received.append(report))("graph", 1, 2)
    assert received == [("graph", 1, 2)]
    assert list(watch.seconds) == ["graph"]


def test_stages_in_any_order_get_bars_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "xterm")
    with progress() as report:
        report("calibration", 1024, 4096)
        report("sensitivity", 1, 48)
        report("calibration", 4096, 4096)
    shown = terminal.getvalue()
    for words in ("calibration", "sensitivity", "100 %", "1 / 48", "left"):
        assert words in shown


def test_nothing_is_shown_without_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with progress() as report:
        report("calibration", 1, 2)
    assert stream.getvalue() == ""
