"""The progress of long commands: bars on standard error if it is a terminal, and the time of each stage."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .show import console
from .sizes import size

Report = Callable[[str, int, int], None]
"""``report(stage, done, total)``"""

COUNTED = frozenset({"graph", "sensitivity", "layers", "cases", "operators", "calls", "lines", "text"})
"""Stages whose numbers are steps, layers, cases, calls, lines or tokens. Those of other stages are bytes."""

IN_PERCENT = frozenset({"calibration"})
"""Stages that count the same data several times, so that only the percentage is meaningful."""

ESTIMATE_SECONDS = 120.0
"""The period for the estimate of the time left: several layers, whose stages take unequal time."""


class Stopwatch:
    """A progress callback that measures the time of each stage, in ``seconds``.

    The time since the previous report, of any stage, is added to the stage of this report.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.seconds: dict[str, float] = {}
        self._clock = clock
        self._last = clock()

    def __call__(self, stage: str, done: int, total: int) -> None:
        now = self._clock()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + now - self._last
        self._last = now


def both(first: Report, second: Report) -> Report:
    """Return a report that calls both."""

    def report(stage: str, done: int, total: int) -> None:
        first(stage, done, total)
        second(stage, done, total)

    return report


@contextmanager
def progress() -> Iterator[Report]:
    """Yield a report that draws one bar per stage, from the first report of the stage on; silent without a terminal."""
    if not sys.stderr.isatty():
        yield lambda _stage, _done, _total: None
        return
    from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description:<11}"),
        BarColumn(),
        TextColumn("{task.fields[amount]:>19}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console(err=True), transient=True, speed_estimate_period=ESTIMATE_SECONDS) as bars:
        shown: dict[str, TaskID] = {}

        def report(stage: str, done: int, total: int) -> None:
            text = amount(stage, done, total)
            if stage in shown:
                bars.update(shown[stage], completed=done, total=total, amount=text)
            else:
                shown[stage] = bars.add_task(stage, completed=done, total=total, amount=text)

        yield report


def amount(stage: str, done: int, total: int) -> str:
    """Format the progress of a stage: ``3 / 48``, ``12 %`` or ``1.2 MB / 3.4 GB``."""
    if stage in IN_PERCENT:
        return f"{100 * done // total} %" if total else "100 %"
    to_text = str if stage in COUNTED else size
    return f"{to_text(done)} / {to_text(total)}"
