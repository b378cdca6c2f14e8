"""The generated part of runtime.md, and its plots."""

from collections.abc import Sequence
from pathlib import Path

import bars
import lines
import onnx
from intaglio.runtime.graph.graph import changed_graph
from intaglio.runtime.kernels import changes_for
from marks import fill
from rows import Row
from shelf import Shelf
from sizes import bytes_of_nodes

from . import own_tables, tables
from .contenders import OURS, TRANSFORMERS, folder_bytes, kv_bytes, step_bytes
from .numbers import middle, shown, value
from .places import place
from .records import Records
from .sections.speed import LONG, PROMPT, STEPS
from .tables import Facts
from .turns import INT8, classifier

BARS, GROWTH, SERIES = "runtime-speed.svg", "runtime-growth.svg", "runtime-steps.svg"
VECTORS = {"avx512_vnni": "AVX512-VNNI", "avx_vnni": "AVX-VNNI", "avx512f": "AVX512", "avx2": "AVX2"}


def body(records: Records, rows: Sequence[Row], shelf: Shelf, threads: int) -> str:
    """Every table for which something was measured, under its heading."""
    facts = [known(records, row, shelf) for row in rows]
    parts = [machine(records, facts, threads)]
    if facts:
        parts += ["### Speed", tables.speed(records, facts)]
        if any(fact.name == OURS for fact in facts) and len(facts) > 1:
            parts.append("Medians of the ratios within each round; above 1 is better for ours.")
            parts.append(tables.against(records, facts, OURS))
        kv = kv_bytes(shelf.checkpoint, PROMPT + STEPS + 1)
        parts += ["### Loading, memory, fidelity", tables.memory(records, facts, kv)]
    if records.of("batches"):
        parts += ["### Streams at once", tables.batches(records)]
    if records.of("share"):
        parts += ["### Where a decode step goes", own_tables.share(records)]
    if records.of("profile"):
        profiled = next((row for row in rows if row.name == records.of("profile")[-1]["name"]), None)
        parts.append(own_tables.profile(records, weights(shelf.path(profiled)) if profiled else {}))
    if records.of("growth"):
        parts += ["### Growth with the context", own_tables.growth(records)]
    if records.of("speculation"):
        parts += ["### Speculation", own_tables.speculation(records)]
    if records.of("classification"):
        parts += ["### Classification", tables.classification(records, classifier(TRANSFORMERS).name)]
    return "\n\n".join(parts)


def write(folder: Path, text: str, records: Records, rows: Sequence[Row]) -> None:
    """``folder/runtime.md`` between its marks, and the plots beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    if draw_speed(folder / BARS, records, rows):
        text += f"\n\n![Decode and prefill]({BARS})"
    if draw_growth(folder / GROWTH, records):
        text += f"\n![Growth with the context]({GROWTH})"
    if draw_steps(folder / SERIES, records):
        text += f"\n![Every step of a long run]({SERIES})"
    fill(folder / "runtime.md", "Runtime", "runtime.py", text)


def machine(records: Records, facts: Sequence[Facts], threads: int) -> str:
    """What it was measured on, and with which versions."""
    text = f"- {processor()}, {threads} threads for everyone"
    if records.of("bandwidth"):
        speed, best = (middle(records.of("bandwidth"), name) for name in ("gbs", "best"))
        text += f"; they read memory at {shown(speed, '.1f')} GB/s (at best {shown(best, '.1f')})"
    rounds = len({record["round"] for record in records.of("speed")})
    if not rounds:
        return text
    versions = dict.fromkeys(tables.version(records, fact.name) for fact in facts)
    return f"{text}\n- {rounds} round{'s' if rounds != 1 else ''}; {'; '.join(filter(None, versions))}"


def processor() -> str:
    """The processor's name, and how many of them there are."""
    told = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = [entry.partition(":")[2].strip() for entry in told if entry.startswith("model name")]
    flags = {flag for entry in told if entry.startswith("flags") for flag in entry.split()}
    vector = next((f" with {name}" for flag, name in VECTORS.items() if flag in flags), "")
    return f"{len(names)} × {names[0]}{vector}" if names else "an unknown processor"


def known(records: Records, row: Row, shelf: Shelf) -> Facts:
    """Bytes of a row's artifact, and its divergence from float32 where that was measured."""
    path = shelf.path(row)
    quality = next(iter(records.of("quality", row.name)), None) or shelf.read(row).get("quality-16") or {}
    decode, prefill = value(quality, "step.kl"), value(quality, "step_prefill")
    return Facts(
        name=row.name,
        tool=row.tool,
        folder=folder_bytes(row, path),
        step=step_bytes(row, path),
        kl=value(quality, "kl"),
        decode_kl=decode / prefill if decode is not None and prefill else None,
    )


def weights(folder: Path) -> dict[str, int]:
    """Bytes of weights that a decode step reads, by the places of a profile, which has the graph as our kernels do."""
    found: dict[str, int] = {}
    graph, _ = changed_graph(folder, changes_for(("MatMulNBits",)))
    for (node, operator), size in bytes_of_nodes(onnx.load_from_string(graph)).items():
        key = place(node, operator)
        found[key] = found.get(key, 0) + size
    return found


def draw_speed(path: Path, records: Records, rows: Sequence[Row]) -> bool:
    """Decode and prefill of everyone; False where nothing was measured."""
    panels: dict[str, list[bars.Bar]] = {}
    for row in rows:
        found = records.of("speed", row.name)
        speeds = {"decode after 128, tokens/s": middle(found, "decode")}
        for length in LONG:
            first = middle(found, f"first.{length}")
            speeds[f"prefill of {length:,}, tokens/s"] = length / first if first else None
        for heading, speed in speeds.items():
            if speed is not None:
                panels.setdefault(heading, []).append(bars.Bar(row.name, row.tool, speed))
    if panels:
        bars.draw(path, "Decode and prefill, more is better", panels)
    return bool(panels)


def draw_growth(path: Path, records: Records) -> bool:
    """Decode and memory over the context, and each step of the long run."""
    found = sorted((r for r in records.of("growth") if r["case"] != "series"), key=lambda r: r["context"])
    small = [r for r in found if r["case"].endswith(INT8)]
    plain = [r for r in found if r not in small]
    if not plain:
        return False
    other = " (orange: with a KV cache of int8)" if small else ""
    panels = [
        lines.Panel(
            heading + other,
            [(r["context"], r[name]) for r in plain],
            marks=True,
            other=[(r["context"], r[name]) for r in small],
        )
        for name, heading in (("decode", "decode, tokens/s"), ("peak", "peak, MB"))
    ]
    lines.draw(path, "Decode and memory as the context grows", "tokens of context", panels)
    return True


def draw_steps(path: Path, records: Records) -> bool:
    """Each step of the long run: where buffers grow, a jump would stand out."""
    found = records.of("growth", case="series")
    if not found:
        return False
    points = [(found[-1]["context"] + number, step) for number, step in enumerate(found[-1]["steps"])]
    lines.draw(path, "Every step of one long run", "tokens of context", [lines.Panel("step, ms", points)])
    return True
