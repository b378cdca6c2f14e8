"""The command: run the matrix, and write or print its table."""

from pathlib import Path

import click
from intaglio.artifact import read_manifest

from . import __doc__ as text
from .cases import ON_THE_CPU, Case, cases
from .environments import ROOT, RUNTIMES
from .matrix import run
from .outcome import Outcome
from .record import Record, read_record
from .table import table, write

RECORD = ROOT / "build" / "interop.json"


@click.command(help=(text or "").split("\n", 1)[0])
@click.option("--runtimes", default=",".join(RUNTIMES), help="Comma-separated; all by default.")
@click.option("--only", default="", help="Run the cases whose name has this text in it.")
@click.option("--quick", is_flag=True, help="One case of each kind.")
@click.option("--real", type=click.Path(exists=True, path_type=Path), help="Run this checkpoint or artifact instead.")
@click.option("--resume", is_flag=True, help=f"Keep what {RECORD.relative_to(ROOT)} has, and run the rest.")
@click.option("--write", "writes", is_flag=True, help="Write the table of what that file has into docs/runtimes.md.")
def main(runtimes: str, only: str, quick: bool, real: Path | None, resume: bool, writes: bool) -> None:
    chosen = runtimes.split(",") if runtimes else []
    if unknown := set(chosen) - set(RUNTIMES):
        raise click.UsageError(f"unknown runtime {min(unknown)}; choose of {', '.join(RUNTIMES)}")
    every = cases(quick=quick) if real is None else _cases_of(real)
    record = read_record(RECORD) if resume else Record()

    def report(case: Case, runtime: str, outcome: Outcome) -> None:
        click.echo(f"{case.name:48} {runtime:18} {outcome.kind}{f': {outcome.reason}' if outcome.reason else ''}")
        record.save(RECORD)

    run([case for case in every if only in case.name], chosen, record, report)
    click.echo(table(record))
    if writes:
        write(table(record))


def _cases_of(source: Path) -> list[Case]:
    """Return the case of an artifact, or those of a checkpoint of Qwen2 in each precision."""
    place = str(source.resolve())
    if (source / "intaglio.json").is_file():
        manifest = read_manifest(source)
        return [Case(manifest.family, manifest.task, manifest.target, manifest.precision, place)]
    return [Case("qwen2", "text-generation", "ort", one, place) for one in ON_THE_CPU]


if __name__ == "__main__":
    main()
