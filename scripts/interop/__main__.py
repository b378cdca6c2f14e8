"""The command: run the matrix, and write or print its table."""

from pathlib import Path

import click
from intaglio.artifact import PRECISIONS, Precision, read_manifest

from . import __doc__ as text
from .cases import Case, cases
from .environments import RUNTIMES
from .matrix import run
from .outcome import Outcome
from .table import table, write


@click.command(help=(text or "").split("\n", 1)[0])
@click.option("--runtimes", default=",".join(RUNTIMES), help="Comma-separated; all by default.")
@click.option("--only", default="", help="Run the cases whose name has this text in it.")
@click.option("--quick", is_flag=True, help="One case of each kind.")
@click.option("--real", type=click.Path(exists=True, path_type=Path), help="A checkpoint or artifact to run as well.")
@click.option("--write", "writes", is_flag=True, help="Write the table into docs/runtimes.md.")
def main(runtimes: str, only: str, quick: bool, real: Path | None, writes: bool) -> None:
    chosen = runtimes.split(",")
    if unknown := set(chosen) - set(RUNTIMES):
        raise click.UsageError(f"unknown runtime {min(unknown)}; choose of {', '.join(RUNTIMES)}")
    selected = [case for case in cases(quick=quick) if only in case.name]
    matrix = run(selected, chosen, _say)
    shown = table(matrix)
    if real is not None:
        shown += "\n" + table(run(_real_cases(real), chosen, _say, {"qwen2": real, "exaone4": real}))
    click.echo(shown)
    if writes:
        write(shown)


def _real_cases(source: Path) -> list[Case]:
    """Return the cases of a checkpoint of Qwen2 in each precision for a CPU, or that of an artifact."""
    if (source / "intaglio.json").is_file():
        manifest = read_manifest(source)
        return [Case(manifest.family, manifest.task, manifest.target, manifest.precision)]
    precisions: tuple[Precision, ...] = PRECISIONS
    return [Case("qwen2", "text-generation", "ort", one) for one in precisions if one in ("fp32", "int8", "int4")]


def _say(case: Case, runtime: str, outcome: Outcome) -> None:
    click.echo(f"{case.name:48} {runtime:18} {outcome.kind}{f': {outcome.reason}' if outcome.reason else ''}")


if __name__ == "__main__":
    main()
