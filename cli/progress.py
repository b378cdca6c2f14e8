"""Progress bars on standard error, where that is a terminal; silence elsewhere."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .show import size

Report = Callable[[str, int, int], None]
STEPS = frozenset({"graph"})  # stages that count steps; the others count bytes


@contextmanager
def progress() -> Iterator[Report]:
    """Yields ``report(stage, done, total)``: one bar a stage, shown from the stage's first report on."""
    if not sys.stderr.isatty():
        yield lambda _stage, _done, _total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description:<8}"),
        BarColumn(),
        TextColumn("{task.fields[amount]:>20}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        shown: dict[str, TaskID] = {}

        def report(stage: str, done: int, total: int) -> None:
            form = str if stage in STEPS else size
            amount = f"{form(done)} / {form(total)}"
            if stage in shown:
                bars.update(shown[stage], completed=done, total=total, amount=amount)
            else:
                shown[stage] = bars.add_task(stage, completed=done, total=total, amount=amount)

        yield report
