"""The generated part of runtime.md, and its plots."""

from collections.abc import Sequence
from pathlib import Path

import onnx
from intaglio.artifact import read_manifest
from intaglio.runtime.graph.graph import changed_graph
from intaglio.runtime.kernels import changes_for

from ..artifacts.graph_bytes import bytes_of_nodes
from ..artifacts.sizes import disk_bytes, kv_bytes, step_bytes
from ..artifacts.store import ArtifactStore
from ..artifacts.variants import INT4, INT4_AVX2, TRANSFORMERS, Variant
from ..harness.measurements import INT8_CACHE, LIMITED, classifier
from ..harness.node_names import layerless
from ..harness.records import Record, Records
from ..harness.sections.speed import LONG, PROMPT, STEPS
from . import own_tables, plots, tables
from .generated import fill
from .numbers import middle, shown, value
from .tables import VariantFacts

BARS, GROWTH, SERIES = "runtime-speed.svg", "runtime-growth.svg", "runtime-steps.svg"
VECTORS = {"avx512_vnni": "AVX512-VNNI", "avx_vnni": "AVX-VNNI", "avx512f": "AVX512", "avx2": "AVX2"}


def body(records: Records, variants: Sequence[Variant], store: ArtifactStore, threads: int) -> str:
    """Return every table for which something was measured, under its heading."""
    every = [variant_facts(records, variant, store) for variant in variants]
    facts = [fact for fact in every if fact.section != LIMITED]
    limited = [fact for fact in every if fact.section == LIMITED]
    parts = [machine(records, every, threads)]
    if facts:
        parts += ["### Speed", tables.speed(records, facts)]
        if any(fact.name == INT4 for fact in facts) and len(facts) > 1:
            parts.append(f"Medians of the ratios within each round; above 1 is better for {INT4}.")
            parts.append(tables.against(records, facts, INT4))
        kv = kv_bytes(store.checkpoint, PROMPT + STEPS + 1)
        parts += ["### Loading, memory, fidelity", tables.memory(records, facts, kv)]
    if limited:
        parts += ["### With AVX2 at most", tables.speed(records, limited), tables.against(records, limited, INT4_AVX2)]
    if records.of("batches"):
        parts += ["### Several sequences at once", tables.batches(records)]
    if records.of("share"):
        parts += ["### Where a decode step goes", own_tables.share(records)]
    if records.of("profile"):
        profiled = next((one for one in variants if one.name == records.of("profile")[-1]["name"]), None)
        parts.append(own_tables.profile(records, weight_bytes(store.path(profiled)) if profiled else {}))
    if records.of("growth"):
        parts += ["### Growth with the context", own_tables.growth(records)]
    if records.of("speculation"):
        parts += ["### Speculation", own_tables.speculation(records)]
    if records.of("classification"):
        parts += ["### Classification", tables.classification(records, classifier(TRANSFORMERS).name)]
    return "\n\n".join(parts)


def write(folder: Path, text: str, records: Records, variants: Sequence[Variant]) -> None:
    """Fill the generated block of ``folder/runtime.md``, and draw the plots beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    if panels := speed_panels(records, variants):
        draw_speed(folder / BARS, panels)
        text += f"\n\n![Decode and prefill]({BARS})"
    growth = [record for record in records.of("growth") if record["case"] != "series"]
    if growth:
        draw_growth(folder / GROWTH, growth)
        text += f"\n![Growth with the context]({GROWTH})"
    if series := records.of("growth", case="series"):
        draw_steps(folder / SERIES, series[-1]["context"], series[-1]["steps"])
        text += f"\n![Every step of a long run]({SERIES})"
    fill(folder / "runtime.md", "Runtime", "runtime.py", text)


def machine(records: Records, facts: Sequence[VariantFacts], threads: int) -> str:
    """Return the machine and the versions of the packages, as a list."""
    text = f"- {processor()}, {threads} threads for everyone"
    if records.of("bandwidth"):
        speed, best = (middle(records.of("bandwidth"), name) for name in ("gbs", "best"))
        text += f"; they read memory at {shown(speed, '.1f')} GB/s (at best {shown(best, '.1f')})"
    rounds = len({record["round"] for record in records.of("speed")})
    if not rounds:
        return text
    versions = dict.fromkeys(tables.version(records, fact) for fact in facts)
    return f"{text}\n- {rounds} round{'s' if rounds != 1 else ''}; {'; '.join(filter(None, versions))}"


def processor() -> str:
    """Return the processor's name, its vector instructions, and the number of processors."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    flags = {flag for line in lines if line.startswith("flags") for flag in line.split()}
    vector = next((f" with {name}" for flag, name in VECTORS.items() if flag in flags), "")
    vector += " and AMX" if "amx_int8" in flags else ""
    return f"{len(names)} × {names[0]}{vector}" if names else "an unknown processor"


def variant_facts(records: Records, variant: Variant, store: ArtifactStore) -> VariantFacts:
    """Return the bytes of a variant's artifact, and its divergence from float32 where it was measured."""
    path = store.path(variant)
    quality = next(iter(records.of("quality", variant.name)), {})
    decode, prefill = value(quality, "step.kl"), value(quality, "step_prefill")
    return VariantFacts(
        name=variant.name,
        tool=variant.tool,
        disk=disk_bytes(variant, path),
        step=step_bytes(variant, path),
        kl=value(quality, "kl"),
        decode_kl=decode / prefill if decode is not None and prefill else None,
        section=LIMITED if variant.instructions else "speed",
    )


def weight_bytes(folder: Path) -> dict[str, int]:
    """Return the bytes of weights that a decode step reads, by module and operator of the graph that intaglio runs."""
    found: dict[str, int] = {}
    manifest = read_manifest(folder)
    graph, _ = changed_graph(folder / manifest.graph, folder / manifest.data, changes_for(("MatMulNBits",)))
    for (node, operator), size in bytes_of_nodes(onnx.load_from_string(graph)).items():
        key = layerless(node, operator)
        found[key] = found.get(key, 0) + size
    return found


def speed_panels(records: Records, variants: Sequence[Variant]) -> dict[str, list[plots.Point]]:
    """Return decode and prefill of every variant that was measured, by the panels' headings."""
    panels: dict[str, list[plots.Point]] = {}
    for variant in variants:
        found = records.of("speed", variant.name)
        speeds = {f"decode after {PROMPT}, tokens/s": middle(found, "decode")}
        for length in LONG:
            first = middle(found, f"first.{length}")
            speeds[f"prefill of {length:,}, tokens/s"] = length / first if first else None
        for heading, speed in speeds.items():
            if speed is not None:
                panels.setdefault(heading, []).append(plots.Point(variant.name, variant.tool, speed))
    return panels


def draw_speed(path: Path, panels: dict[str, list[plots.Point]]) -> None:
    plots.bars(path, "Decode and prefill, more is better", panels)


def draw_growth(path: Path, records: Sequence[Record]) -> None:
    """Plot decode and peak memory over the context, with the float32 and the int8 KV cache."""
    ordered = sorted(records, key=lambda record: record["context"])
    int8 = [record for record in ordered if record["case"].endswith(INT8_CACHE)]
    plain = [record for record in ordered if record not in int8]
    note = " (orange: int8 KV cache)" if int8 else ""
    panels = {
        heading + note: ([(r["context"], r[name]) for r in plain], [(r["context"], r[name]) for r in int8])
        for name, heading in (("decode", "decode, tokens/s"), ("peak", "peak, MB"))
    }
    plots.lines(path, "Decode and memory as the context grows", "tokens of context", panels, values=True)


def draw_steps(path: Path, context: int, steps: Sequence[float]) -> None:
    """Plot each step of the long run in ms; a buffer that grows would show as a peak."""
    line = [(context + number, step) for number, step in enumerate(steps)]
    plots.lines(path, "Every step of one long run", "tokens of context", {"step, ms": (line, [])}, values=False)
