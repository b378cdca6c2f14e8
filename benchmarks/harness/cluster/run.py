"""The run: each arrangement is started in turn, and its cells are measured, in rounds."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from ....serving.load.measure import measure
from ....serving.load.statistics import figures
from ..records import Key, Records
from ..rounds import fill_page_cache
from ..serving.servers import Room
from .arrangements import ARRANGEMENTS, Running, running
from .cells import Cell

SECTION = "cluster"
KEPT = ("output_tokens_per_second", "first_token_seconds", "token_gap_seconds", "end_to_end_seconds")


def run(
    artifact: Path, cells: Sequence[Cell], room: Room, rounds: int, records: Records, folder: Path, python: Path
) -> None:
    """Measure what is not recorded yet; the logs of the servers are kept in ``folder``."""
    fill_page_cache(artifact)
    for number in range(rounds):
        for name in ARRANGEMENTS if number % 2 == 0 else ARRANGEMENTS[::-1]:
            missing = [
                cell
                for cell in cells
                if name in cell.arrangements and not records.has(Key(SECTION, name, cell.name, number))
            ]
            if not missing:
                continue
            log = folder / f"{ARRANGEMENTS.index(name)}-{number}.log"
            with running(name, artifact, room, python, log) as server:
                for cell in missing:
                    found = _measure(server, cell)
                    click.echo(f"round {number + 1}: {cell.name}, {name}: {_line(found)}")
                    records.add(Key(SECTION, name, cell.name, number), found)


def _measure(server: Running, cell: Cell) -> dict[str, Any]:
    measured = asyncio.run(measure(server.address, cell.load, cell.texts))
    found = figures(measured.run)
    if found["errors"]:
        raise SystemExit(f"{cell.name}: requests failed: {found['errors']} {found['error_details']}")
    share = found["cached_tokens"] / max(1, found["prompt_tokens"])
    return {name: found[name] for name in KEPT} | {"cached_share": share, "memory": server.memory()}


def _line(found: dict[str, Any]) -> str:
    first, whole = found["first_token_seconds"], found["end_to_end_seconds"]
    return (
        f"{found['output_tokens_per_second']:.1f} tokens/s, first token p50 {1e3 * first['p50']:.0f} ms, "
        f"whole answer p50 {1e3 * whole['p50']:.0f} ms, {found['cached_share']:.0%} of prompts cached, "
        f"{found['memory']['models']:.0f} MB of models, {found['memory']['others']:.0f} MB of Ray"
    )
