"""Measure intaglio's server and llama.cpp's at the same loads in turns, and write the tables and plots of serving.md.

    python -m intaglio.benchmarks.serving ARTIFACT --gguf FILE --scratch DIR   about 25 minutes: 3 rounds
        --quick                                                              under 10 minutes: 1 round, shorter
        --only clients --only long                                           some kinds of cells
        --report benchmarks                                                  writes serving.md and its plots there
        --again                                                              forget what was measured

ARTIFACT is an int4 artifact for text generation, FILE the same checkpoint in GGUF; llama.cpp gets Q4_0, its fastest
4-bit format on a CPU, made from it. llama.cpp's server is built for this processor in an environment of its own
(DIR/venvs; some minutes, once). Both servers run side by side, and each cell is measured on one and then the other, in
the other order in the next round. Figures are recorded in DIR/serving/records.jsonl and the samples of each cell in
DIR/serving/raw, so that an interrupted run continues. Measure on a quiet machine.
"""

import signal
import sys
from pathlib import Path

import click

from .artifacts import environments
from .artifacts.store import ArtifactStore
from .artifacts.variants import ALL
from .harness.records import Records
from .harness.serving.cells import CONTEXT, KINDS, LONG, LONG_CONTEXT, OTHERS, cells
from .harness.serving.race import SECTION, race
from .harness.serving.servers import Room, intaglio, llama
from .pages import serving_page

ENVIRONMENT = "llama-server"
SLOTS = 16


@click.command(context_settings={"show_default": True})
@click.argument("artifact", type=click.Path(exists=True, path_type=Path))
@click.option("--gguf", required=True, type=click.Path(exists=True, path_type=Path), help="The same checkpoint.")
@click.option("--scratch", required=True, type=click.Path(path_type=Path), help="Environments, artifacts, figures.")
@click.option("--variant", default="llama-q4-0", help="What llama.cpp serves, made from the GGUF file.")
@click.option("--python", type=click.Path(exists=True, path_type=Path), help="An interpreter that has llama-server.")
@click.option("--threads", default=2, help="Threads of each server.")
@click.option("--rounds", default=3, help="Rounds; 0 writes the report of the recorded figures.")
@click.option("--seconds", default=12.0, help="How long a cell is measured.")
@click.option("--rate", default=1.0, help="Requests a second of the random arrivals.")
@click.option("--only", "kinds", multiple=True, type=click.Choice(KINDS), help="Kinds of cells; all by default.")
@click.option("--quick", is_flag=True, help="One round of 8 seconds a cell, and fewer cells.")
@click.option("--again", is_flag=True, help="Forget the recorded figures.")
@click.option("--report", type=click.Path(path_type=Path), help="Write serving.md and its plots there.")
def main(
    artifact: Path,
    gguf: Path,
    scratch: Path,
    variant: str,
    python: Path | None,
    threads: int,
    rounds: int,
    seconds: float,
    rate: float,
    kinds: tuple[str, ...],
    quick: bool,
    again: bool,
    report: Path | None,
) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # ends the servers too
    artifact, scratch, gguf = artifact.absolute(), scratch.absolute(), gguf.absolute()
    if quick:
        rounds, seconds = min(rounds, 1), 8.0
    found = python or environments.install(ENVIRONMENT, scratch / "venvs" / ENVIRONMENT)
    if found is None:
        raise click.ClickException("llama.cpp's server cannot be built; see above")
    store = ArtifactStore(scratch, artifact, str(gguf))
    store.make(ALL[variant], str(found))
    records = Records(scratch / "serving" / "records.jsonl")
    if again:
        records.forget([SECTION])
    servers = [intaglio(artifact), llama(store.path(ALL[variant]), Path(found))]
    folder = scratch / "serving"
    chosen = [cell for cell in [*cells(seconds, rate, quick=quick), LONG] if cell.kind in (kinds or KINDS)]
    loads = [cell for cell in chosen if cell.load is not None]
    race(servers, loads, Room(SLOTS, CONTEXT, threads), rounds, records, folder)
    race(servers, chosen[len(loads) :], Room(OTHERS + 1, LONG_CONTEXT, threads), rounds, records, folder)
    text = serving_page.body(records, [f"{server.name}: {server.model.name}" for server in servers], threads)
    click.echo(text)
    if report is not None:
        serving_page.write(report, text, records)


if __name__ == "__main__":
    main()
