"""The generated part of serving.md, and its plots."""

from collections.abc import Sequence
from pathlib import Path

from ..harness.records import Records
from ..harness.serving.cells import CLIENTS, LONG_TOKENS, OTHERS, PREFIX_TOKENS
from ..harness.serving.race import SECTION
from ..harness.serving.servers import INTAGLIO, LLAMA
from . import plots
from .generated import fill
from .numbers import markdown, middle, ratio, shown
from .runtime_page import processor

PLOT, PREFIX_PLOT = "serving-clients.svg", "serving-prefix.svg"
SPEED = "output_tokens_per_second"
LATENCIES = {
    "first token p50, ms": "first_token_seconds.p50",
    "first token p99, ms": "first_token_seconds.p99",
    "gap p50, ms": "token_gap_seconds.p50",
    "gap p99, ms": "token_gap_seconds.p99",
}
LONG = {
    "their gap p50 before, ms": ("before.p50", 1e3),
    "their gap p99 meanwhile, ms": ("during.p99", 1e3),
    "their longest gap, ms": ("during.max", 1e3),
    "p99 / median": ("p99_ratio", 1.0),
    "longest / median": ("max_ratio", 1.0),
    "first token of the long prompt, s": ("long_first_token", 1.0),
}


def body(records: Records, models: Sequence[str], threads: int) -> str:
    """Return the tables of what was measured."""
    rounds = len({record["round"] for record in records.of(SECTION)})
    parts = [
        f"- {processor()}, {threads} threads for each server\n- {'; '.join(models)}\n"
        f"- {rounds} round{'s' * (rounds != 1)}: medians over them"
    ]
    titles = {
        "clients": "### Prompts of 128 tokens, answers of 64",
        "prefix": f"### After a system prompt of {PREFIX_TOKENS:,} tokens that all share",
    }
    for kind, title in titles.items():
        cases = [f"{kind}-{clients}" for clients in CLIENTS if records.of(SECTION, case=f"{kind}-{clients}")]
        if cases:
            parts += [title, loads(records, cases)]
    if records.of(SECTION, case="open"):
        parts += ["### The same random arrivals", loads(records, ["open"])]
    if records.of(SECTION, case="long"):
        title = f"### A prompt of {LONG_TOKENS:,} tokens arrives while {OTHERS} others read their answers"
        parts += [title, long_table(records)]
    return "\n\n".join(parts)


def loads(records: Records, cases: Sequence[str]) -> str:
    """Tabulate throughput and latencies of each case and server; the ratio is intaglio's over llama.cpp's."""
    head = ["load", "server", "tokens/s", "ratio", "with prompts, tokens/s", *LATENCIES]
    rows = []
    for case in cases:
        own, peer = (records.of(SECTION, name, case) for name in (INTAGLIO, LLAMA))
        for name, found in ((INTAGLIO, own), (LLAMA, peer)):
            if not found:
                continue
            cells = [words(case), name, shown(middle(found, SPEED), ".1f")]
            cells.append(shown(ratio(own, peer, SPEED) if name == INTAGLIO else None, ".2f"))
            cells.append(shown(middle(found, "total_tokens_per_second"), ".0f"))
            cells += [shown(middle(found, path), ",.1f", 1e3) for path in LATENCIES.values()]
            rows.append(cells)
    return markdown(head, rows, left=2)


def long_table(records: Records) -> str:
    """Tabulate what the long prompt does to the others."""
    rows = []
    for name in (INTAGLIO, LLAMA):
        found = records.of(SECTION, name, "long")
        if found:
            rows.append([name, *(shown(middle(found, path), ",.1f", factor) for path, factor in LONG.values())])
    return markdown(["server", *LONG], rows)


def words(case: str) -> str:
    """Return a case in words: ``clients-8`` is ``8 clients``."""
    kind, _, clients = case.partition("-")
    return f"{clients} client{'s' * (clients != '1')}" if clients else kind


def write(folder: Path, text: str, records: Records) -> None:
    """Fill the generated block of ``folder/serving.md``, and draw the plots beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    for kind, file, title in (
        ("clients", PLOT, "Throughput and latency"),
        ("prefix", PREFIX_PLOT, f"After a shared system prompt of {PREFIX_TOKENS:,} tokens"),
    ):
        panels = {
            f"{heading} (blue: intaglio, orange: llama.cpp)": (
                line(records, INTAGLIO, kind, path, factor),
                line(records, LLAMA, kind, path, factor),
            )
            for heading, path, factor in (
                ("output tokens/s", SPEED, 1.0),
                *((name, path, 1e3) for name, path in LATENCIES.items()),
            )
        }
        if len(next(iter(panels.values()))[0]) > 1:
            plots.lines(folder / file, title, "clients", panels, values=True)
            text += f"\n\n![{title}]({file})"
    fill(folder / "serving.md", "Serving", "serving.py", text)


def line(records: Records, server: str, kind: str, path: str, factor: float) -> list[tuple[float, float]]:
    """Return a figure's medians over the number of clients."""
    points = [(clients, middle(records.of(SECTION, server, f"{kind}-{clients}"), path)) for clients in CLIENTS]
    return [(clients, factor * value) for clients, value in points if value is not None]
