"""Measure replicas on Ray beside one server without it, on this machine, and write their tables into serving.md.

    python -m intaglio.benchmarks.cluster ARTIFACT --scratch DIR --python INTERPRETER   about 6 minutes: 2 rounds
        --report benchmarks                                                             writes into serving.md there
        --again                                                                         forget what was measured

ARTIFACT is for text generation. INTERPRETER has Ray: of an environment with ``pip install 'intaglio[cpu,ray]'``; by
default the one that runs this. Each arrangement runs alone, with as many threads and slots as the others. Figures are
recorded in DIR/cluster/records.jsonl, so that an interrupted run continues. Measure on a quiet machine.
"""

import signal
import sys
from pathlib import Path

import click

from .harness.cluster.cells import cells
from .harness.cluster.run import SECTION, run
from .harness.records import Records
from .harness.serving.servers import Room
from .pages import cluster_page

SLOTS = 8
CONTEXT = 2048
THREADS = 2


@click.command(context_settings={"show_default": True})
@click.argument("artifact", type=click.Path(exists=True, path_type=Path))
@click.option("--scratch", required=True, type=click.Path(path_type=Path), help="Figures and logs.")
@click.option("--python", type=click.Path(exists=True, path_type=Path), help="An interpreter that has Ray.")
@click.option("--rounds", default=2, help="Rounds; 0 writes the report of the recorded figures.")
@click.option("--seconds", default=10.0, help="How long a cell is measured.")
@click.option("--clients", default=8, help="Clients that fill a server; an even number.")
@click.option("--again", is_flag=True, help="Forget the recorded figures.")
@click.option("--report", type=click.Path(path_type=Path), help="Write into serving.md there.")
def main(
    artifact: Path,
    scratch: Path,
    python: Path | None,
    rounds: int,
    seconds: float,
    clients: int,
    again: bool,
    report: Path | None,
) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # ends the servers too
    folder = scratch.absolute() / "cluster"
    records = Records(folder / "records.jsonl")
    if again:
        records.forget([SECTION])
    # The interpreter of an environment is a link, which must not be followed.
    interpreter = Path(sys.executable) if python is None else python.absolute()
    room = Room(SLOTS, CONTEXT, THREADS)
    run(artifact.absolute(), cells(seconds, clients), room, rounds, records, folder, interpreter)
    text = cluster_page.body(records, clients, THREADS)
    click.echo(text)
    if report is not None:
        cluster_page.write(report, text)


if __name__ == "__main__":
    main()
