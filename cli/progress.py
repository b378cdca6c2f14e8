"""How far a long command is: bars on standard error where that is a terminal, and the time that each stage took."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .show import size

Report = Callable[[str, int, int], None]

COUNTED = frozenset({"graph", "sensitivity", "layers", "cases", "operators", "calls"})
"""Stages that count steps, layers, cases or calls."""

SHARED_OUT = frozenset({"calibration"})
"""Stages that count the same thing several times, so that only the share of it says something. All others count bytes.
"""

ESTIMATE_SECONDS = 120.0
"""What the estimate of the time left is made from: a layer's stages take unequal time, so more than one layer."""


class Stopwatch:
    """Hears what a bar hears; ``seconds`` has each stage's share of the time.

    A report is made when something is done: the time since the last one, of whichever stage, belongs to its stage.
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
    """A report that two hear."""

    def report(stage: str, done: int, total: int) -> None:
        first(stage, done, total)
        second(stage, done, total)

    return report


@contextmanager
def progress() -> Iterator[Report]:
    """Yields ``report(stage, done, total)``: one bar a stage, shown from the stage's first report on."""
    if not sys.stderr.isatty():
        yield lambda _stage, _done, _total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description:<11}"),
        BarColumn(),
        TextColumn("{task.fields[amount]:>19}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, speed_estimate_period=ESTIMATE_SECONDS) as bars:
        shown: dict[str, TaskID] = {}

        def report(stage: str, done: int, total: int) -> None:
            text = amount(stage, done, total)
            if stage in shown:
                bars.update(shown[stage], completed=done, total=total, amount=text)
            else:
                shown[stage] = bars.add_task(stage, completed=done, total=total, amount=text)

        yield report


def amount(stage: str, done: int, total: int) -> str:
    """How far a stage is, in words: ``3 / 48``, ``12 %`` or ``1.2 MB / 3.4 GB``."""
    if stage in SHARED_OUT:
        return f"{100 * done // total} %" if total else "100 %"
    form = str if stage in COUNTED else size
    return f"{form(done)} / {form(total)}"
