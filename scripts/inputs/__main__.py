"""The command: run the cases, and write or print the table."""

import importlib.util
import tempfile
from pathlib import Path

import click
from intaglio.tests.files.drive import trace_once
from intaglio.tests.inputs.formats import cases
from intaglio.tests.inputs.outcome import run_case

from . import __doc__ as text
from .record import Record, read_record
from .table import FAMILY, ROOT, table, write

RECORD = ROOT / "build" / "inputs.json"


@click.command(help=text)
@click.option("--only", default="", help="Run the cases whose format has this text in it.")
@click.option("--resume", is_flag=True, help=f"Keep what {RECORD.relative_to(ROOT)} has, and run the rest.")
@click.option("--write", "writes", is_flag=True, help="Write the table of what that file has into docs/inputs.md.")
def main(only: str, resume: bool, writes: bool) -> None:
    trace_once()
    before = read_record(RECORD)
    kept = Record()
    for case in cases():
        for family in FAMILY:
            key = Record.key(case, family)
            if key in before.outcomes and (resume or only not in case.format):
                kept.outcomes[key] = before.outcomes[key]
                continue
            if only not in case.format:
                continue
            if case.requires is not None and importlib.util.find_spec(case.requires) is None:
                click.echo(f"{', '.join(key)}: skipped, {case.requires} is not installed", err=True)
                continue
            with tempfile.TemporaryDirectory(prefix="intaglio-inputs-") as place:
                outcome = run_case(case, family, Path(place))
            kept.outcomes[key] = outcome
            kept.save(RECORD)
            click.echo(f"{', '.join(key)}: {outcome.kind}", err=True)
    kept.save(RECORD)
    click.echo(table(kept))
    if writes:
        write(table(kept))


if __name__ == "__main__":
    main()
