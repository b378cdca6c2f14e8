"""The tables of runtime.md that compare tools: figures of every variant, and the default int4 against each."""

from collections.abc import Sequence
from dataclasses import dataclass

from ..harness.records import Record, Records
from ..harness.sections.speed import LONG, PROMPT, STEPS
from .numbers import kl, markdown, middle, percent, ratio, shown, spread, value

ALLOWANCE = 1.3, 150.0  # × the artifact's size, and MB: the memory that a process may need beside the KV cache


@dataclass(frozen=True)
class VariantFacts:
    """Figures of a variant beside its times: bytes on disk and of a decode step, ``kl`` to float32 in nats per token.

    ``section`` is the one that measured its speed.
    ``decode_kl`` is the KL of decode over that of prefill on the same windows, where both were measured.
    """

    name: str
    tool: str
    disk: int
    step: int
    kl: float | None = None
    decode_kl: float | None = None
    section: str = "speed"


def speed(records: Records, facts: Sequence[VariantFacts], lengths: Sequence[int] = LONG) -> str:
    """Tabulate decode, prefill and first token, and decode's share of the bound that memory bandwidth sets."""
    head = ["tool", "variant", "decode tok/s", "least to most", "of the ceiling"]
    head += [f"prefill {length} tok/s" for length in lengths]
    head += [f"first token of {length}, ms" for length in (PROMPT, *lengths)]
    rows = []
    machine = records.of("bandwidth")
    for fact in facts:
        found = records.of(fact.section, fact.name)
        reached = ratio(found, machine, "decode", "gbs")
        least, most = spread(found, "decode") or (None, None)
        cells = [fact.tool, fact.name, shown(middle(found, "decode"), ".1f")]
        cells += [f"{shown(least, '.1f')} to {shown(most, '.1f')}", percent(reached and reached * fact.step / 1e9)]
        for length in lengths:
            first = middle(found, f"first.{length}")
            cells.append(shown(length / first if first else None, ".0f"))
        cells += [shown(middle(found, f"first.{length}"), ",.0f", 1e3) for length in (PROMPT, *lengths)]
        rows.append(cells)
    return markdown(head, rows, left=2)


def memory(records: Records, facts: Sequence[VariantFacts], kv: int) -> str:
    """Tabulate loading, memory, size and KL; ``kv`` is the bytes of a float32 KV cache for the short run."""
    head = ["tool", "variant", "load s", f"peak MB, {PROMPT} + {STEPS + 1}", "before loading", f"peak MB, {LONG[-1]}"]
    head += ["1.3 × size + KV + 150 MB", "disk MB", "MB read per step", "KL to fp32"]
    rows = []
    for fact in facts:
        found = records.of(fact.section, fact.name)
        allowed = ALLOWANCE[0] * fact.disk / 1e6 + kv / 1e6 + ALLOWANCE[1]
        cells = [fact.tool, fact.name, shown(middle(found, "load"), ".2f"), shown(middle(found, "peak"), ",.0f")]
        cells += [shown(middle(found, "imports"), ",.0f"), shown(middle(found, "peak_long"), ",.0f")]
        cells += [f"{allowed:,.0f}" if fact.tool == "intaglio" else "", f"{fact.disk / 1e6:,.0f}"]
        cells += [f"{fact.step / 1e6:,.0f}", divergence(fact)]
        rows.append(cells)
    return markdown(head, rows, left=2)


def against(records: Records, facts: Sequence[VariantFacts], compared: str, lengths: Sequence[int] = LONG) -> str:
    """Tabulate the ratios of the variant ``compared`` to each other, within rounds: above 1 is better for it."""
    figures = [("decode", "decode", False)]
    figures += [(f"prefill {length}", f"first.{length}", True) for length in lengths]
    figures += [
        (f"first token of {PROMPT}", f"first.{PROMPT}", True),
        ("load", "load", True),
        ("peak MB", "peak", True),
    ]
    numerator = [record for fact in facts if fact.name == compared for record in records.of(fact.section, compared)]
    rows = []
    for fact in facts:
        other = records.of(fact.section, fact.name)
        if fact.name != compared:
            cells = [
                ratio(other, numerator, path) if less_is_better else ratio(numerator, other, path)
                for _, path, less_is_better in figures
            ]
            rows.append([fact.tool, fact.name, *(shown(cell, ".2f") for cell in cells)])
    return markdown(["tool", f"{compared} against", *(name for name, _, _ in figures)], rows, left=2)


def batches(records: Records) -> str:
    """Tabulate the tokens/s of several sequences together, and their ratio to one sequence's."""
    names = records.names("batches")
    sizes = sorted({int(key) for record in records.of("batches") for key in record if key.isdigit()})
    head = ["variant", *(f"{size} at once, tok/s" for size in sizes), *(f"× of one, {size}" for size in sizes[1:])]
    rows = []
    for name in names:
        found = records.of("batches", name)
        cells = [shown(middle(found, f"{size}.decode"), ".1f") for size in sizes]
        gains = [shown(ratio(found, found, f"{size}.decode", f"{sizes[0]}.decode"), ".2f") for size in sizes[1:]]
        rows.append([name, *cells, *gains])
    return markdown(head, rows)


def classification(records: Records, reference: str) -> str:
    """Tabulate sentences/s, and the number of labels that are the same as those of ``reference``."""
    expected = next((r["labels"] for r in records.of("classification", reference)), None)
    base = records.of("classification", reference)
    rows = []
    for name in records.names("classification"):
        for case in dict.fromkeys(r["case"] for r in records.of("classification", name)):
            found = records.of("classification", name, case)
            same = _same(found[0], expected)
            faster = [ratio(found, [r for r in base if r["case"] == other], "sentences") for other in ("", "sorted")]
            label = f"{name}, by length" if case else name
            rows.append([label, shown(middle(found, "sentences"), ".1f"), *(shown(f, ".2f") for f in faster), same])
    head = ["variant", "sentences/s", f"× {reference}", f"× {reference}, by length", "same labels"]
    return markdown(head, rows)


def divergence(fact: VariantFacts) -> str:
    """Format the KL of prefill, and decode's factor where it differs by more than a tenth."""
    if fact.kl is None:
        return ""
    differs = fact.decode_kl is not None and abs(fact.decode_kl - 1) > 0.1
    return kl(fact.kl) + (f" (decode × {fact.decode_kl:.2f})" if differs else "")


def _same(record: Record, expected: list[str] | None) -> str:
    if expected is None or len(expected) != len(record["labels"]):
        return ""
    count = sum(a == b for a, b in zip(record["labels"], expected, strict=True))
    return f"{count} of {len(expected)}"


def version(records: Records, fact: VariantFacts) -> str:
    """Return the packages that ran a variant, as its newest record names them."""
    found = [r["version"] for r in records.of(fact.section, fact.name) if value(r, "decode") is not None]
    return str(found[-1]) if found else ""
