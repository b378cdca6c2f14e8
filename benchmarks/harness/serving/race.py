"""The race: both servers run side by side, and each cell is measured on one after the other, in rounds."""

import asyncio
import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from ....serving.load.measure import measure
from ....serving.load.statistics import figures
from ..records import Key, Records
from ..rounds import fill_page_cache
from .cells import LONG_TOKENS, OTHERS, Cell
from .long_prompt import long_prompt
from .servers import Room, Server, running

SECTION = "serving"


def race(
    servers: Sequence[Server], cells: Sequence[Cell], room: Room, rounds: int, records: Records, folder: Path
) -> None:
    """Measure what is not recorded yet. The samples of each cell are kept in ``folder/raw``."""

    def key(server: Server, cell: Cell, number: int) -> Key:
        return Key(SECTION, server.name, cell.name, number)

    if all(records.has(key(s, cell, number)) for s in servers for cell in cells for number in range(rounds)):
        return
    with ExitStack() as stack:
        addresses = {}
        for server in servers:
            fill_page_cache(server.model)
            log = folder / f"{server.name}-{room.slots}.log"
            addresses[server.name] = stack.enter_context(running(server, room, log))
        for number in range(rounds):
            for cell in cells:
                order = servers if number % 2 == 0 else servers[::-1]
                for server in order:
                    if records.has(key(server, cell, number)):
                        continue
                    found = _measure(
                        addresses[server.name], cell, folder / "raw" / f"{cell.name}-{server.name}-{number}"
                    )
                    click.echo(f"round {number + 1}: {cell.name}, {server.name}: {_line(found)}")
                    records.add(key(server, cell, number), found)


def _measure(address: str, cell: Cell, raw: Path) -> dict[str, Any]:
    if cell.load is None:
        texts = cell.texts
        return asyncio.run(long_prompt(address, OTHERS, LONG_TOKENS, texts.prompt_tokens, texts.new_tokens))
    measured = asyncio.run(measure(address, cell.load, cell.texts))
    raw.parent.mkdir(parents=True, exist_ok=True)
    samples = [asdict(sample) for sample in measured.run.all]
    window = {"start": measured.run.start, "end": measured.run.end}
    raw.with_suffix(".json").write_text(json.dumps({**window, "samples": samples}), encoding="utf-8")
    found = figures(measured.run)
    if found["errors"]:
        raise SystemExit(f"{cell.name}: requests failed: {found['errors']} {found['error_details']}")
    return {**found, "client_cpu": measured.client_cpu}


def _line(found: dict[str, Any]) -> str:
    if "max_ratio" in found:
        first, ratio = found["long_first_token"], found["max_ratio"]
        return f"first token of the long prompt {first:.1f} s, the others' longest gap {ratio:.1f} × their median"
    first, gap = found["first_token_seconds"], found["token_gap_seconds"]
    return (
        f"{found['output_tokens_per_second']:.1f} tokens/s, first token p50 {1e3 * first['p50']:.0f} "
        f"p99 {1e3 * first['p99']:.0f} ms, gap p50 {1e3 * gap['p50']:.1f} p99 {1e3 * gap['p99']:.1f} ms"
    )
