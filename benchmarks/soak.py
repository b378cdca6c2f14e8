"""Keep a server busy for minutes, with clients that leave and requests that are wrong, and plot what it holds.

    python -m intaglio.benchmarks.soak ARTIFACT --minutes 20 --out DIR

Writes DIR/soak.json, with a sample for each second, and DIR/soak.svg. ARTIFACT is for text generation.
"""

import asyncio
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import click

from .harness.soak.clients import Outcomes, client
from .harness.soak.samples import Sample, growth, sample, series
from .pages.plots import lines


@click.command(context_settings={"show_default": True})
@click.argument("artifact", type=click.Path(exists=True, path_type=Path))
@click.option("--minutes", default=20.0, help="How long.")
@click.option("--clients", default=12, help="Clients at once; more than slots, so that requests wait.")
@click.option("--slots", default=8, help="Requests that the server decodes together.")
@click.option("--threads", default=2, help="Threads of the server.")
@click.option("--seed", default=0, help="What the requests are drawn from.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Where soak.json and soak.svg go.")
def main(artifact: Path, minutes: float, clients: int, slots: int, threads: int, seed: int, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "intaglio.cli.main", "serve", f"model={artifact.absolute()}", "--json"]
    options = ["--port", "0", "--slots", str(slots), "--threads", str(threads)]
    with (
        (out / "soak.log").open("w", encoding="utf-8") as log,
        subprocess.Popen([*command, *options], stdout=subprocess.PIPE, stderr=log, text=True) as server,
    ):
        assert server.stdout is not None
        try:
            address = json.loads(server.stdout.readline())["address"]
            samples, outcomes = asyncio.run(_soak(address, server.pid, 60 * minutes, clients, seed))
        except BaseException:
            server.kill()
            raise
        server.send_signal(signal.SIGTERM)
        code = server.wait(60)
    growths = growth(samples)
    document = {"minutes": minutes, "outcomes": outcomes, "growth": growths, "exit": code}
    (out / "soak.json").write_text(json.dumps({**document, "samples": [one._asdict() for one in samples]}))
    lines(
        out / "soak.svg", f"A server under mixed load for {minutes:g} minutes", "seconds", series(samples), values=False
    )
    print(json.dumps(document, indent=2))


async def _soak(address: str, process: int, seconds: float, clients: int, seed: int) -> tuple[list[Sample], Outcomes]:
    """Run the clients, and take a sample each second."""
    outcomes = Outcomes()
    end = time.monotonic() + seconds
    tasks = [asyncio.create_task(client(address, f"{seed}/{number}", end, outcomes)) for number in range(clients)]
    samples, start = [], time.monotonic()
    while time.monotonic() < end:
        samples.append(await sample(address, process, time.monotonic() - start, outcomes.total()))
        await asyncio.sleep(1)
    await asyncio.gather(*tasks)
    return samples, outcomes


if __name__ == "__main__":
    main()
