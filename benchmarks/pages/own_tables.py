"""The parts of runtime.md that only intaglio has: growth, speculation, and where the time of a decode step goes."""

from collections.abc import Mapping

from ..harness.measurements import INT8_CACHE
from ..harness.records import Record, Records
from .numbers import markdown, middle, percent, shown

SMALL = 0.01  # of a pass; kernels below are summed up
LITTLE = 1 << 20  # bytes; a kernel that reads less is not bound by memory


def growth(records: Records) -> str:
    """Tabulate decode and memory at each context, and describe the steps of one long run."""
    rows = []
    for context, case in sorted(
        (int(case.removesuffix(INT8_CACHE)), case) for case in _cases(records) if case != "series"
    ):
        found = records.of("growth", case=case)
        cells = [f"{context:,}", "int8" if case.endswith(INT8_CACHE) else "float32"]
        cells += [shown(middle(found, "decode"), ".1f"), shown(middle(found, "median"), ".1f")]
        cells += [shown(middle(found, "prefill"), ",.1f"), shown(middle(found, "rss"), ",.0f")]
        rows.append([*cells, shown(middle(found, "peak"), ",.0f")])
    head = ["context", "KV cache", "decode tok/s", "step ms", "prefill s", "MB after it", "peak MB"]
    text = markdown(head, rows, left=1)
    kept = [(record["name"], record["int8_cache"]) for record in records.of("quality") if "int8_cache" in record]
    if kept:
        divergences = (f"{name} {found['kl']:.5f} ({found['top1']:.1%})".replace("%", " %") for name, found in kept)
        text += f"\n\nDivergence from float32 with a KV cache of int8 (and top-1): {', '.join(divergences)}."
    series = records.of("growth", case="series")
    if series:
        steps, context = len(series[-1]["steps"]), series[-1]["context"]
        median, p99, slowest = (middle(series, name) or 0.0 for name in ("median", "p99", "slowest"))
        text += (
            f"\n\n{steps:,} steps one after the other, from {context:,} positions on: median {median:.1f} ms, "
            f"99 in 100 within {p99:.1f} ms, the slowest {slowest:.1f} ms."
        )
    return text


def speculation(records: Records) -> str:
    """Tabulate seconds with and without speculation, on text that repeats its prompt and on free text."""
    found = records.of("speculation")
    rows = []
    for name, label in (("edit", "a file with one name changed, greedy"), ("free", "free text, sampled")):
        same = all(record[name]["same"] for record in found)
        cells = [label, shown(middle(found, f"{name}.prompt"), ",.0f"), shown(middle(found, f"{name}.new"), ".0f")]
        cells += [shown(middle(found, f"{name}.seconds.{mode}"), ".1f") for mode in ("without", "with", "auto")]
        for gain in ("speedup", "decode"):
            cells += [shown(middle(found, f"{name}.{gain}.{mode}"), ".2f") for mode in ("with", "auto")]
        rows.append([*cells, "yes" if same else "**no**"])
    head = ["", "prompt", "new tokens", "without, s", "with, s", "default, s", "× with", "× default"]
    head += ["decode alone × with", "× default", "same tokens"]
    return "\n\n".join([markdown(head, rows), *_repeated(found), *_structured(found), *_costs(found)])


def _repeated(found: list[Record]) -> list[str]:
    """Return a sentence on a request that comes again, where it was measured."""
    if (second := middle(found, "again.second")) is None:
        return []
    same = all(record["again"]["same"] for record in found if "again" in record)
    return [
        f"The free text once more, as a second request to the same scheduler: {second:.1f} s instead of "
        f"{middle(found, 'again.first') or 0.0:.1f} ({'the same tokens' if same else '**other tokens**'})."
    ]


def _structured(found: list[Record]) -> list[str]:
    """Return a sentence on structured output, where it was measured."""
    if (auto := middle(found, "structured.seconds.auto")) is None:
        return []
    same = all(record["structured"]["same"] for record in found if "structured" in record)
    new, plain = (middle(found, f"structured.{name}") or 0.0 for name in ("new", "seconds.without"))
    return [
        f"Four records by a JSON schema, {new:.0f} tokens, sampled: {auto:.1f} s with guesses and forced tokens read "
        f"together, {plain:.1f} s one by one ({'the same tokens' if same else '**other tokens**'})."
    ]


def _costs(found: list[Record]) -> list[str]:
    """Return a table of what a pass costs in decode steps, where it was measured."""
    contexts = sorted({int(length) for record in found for length in record.get("costs", {})})
    counts = sorted(
        {int(n) for record in found for row in record.get("costs", {}).values() for n in row if n.isdigit()}
    )
    rows = []
    for length in contexts:
        cells = [shown(middle(found, f"costs.{length}.{count}"), ".2f") for count in counts]
        rows.append([f"{length:,}", shown(middle(found, f"costs.{length}.step"), ".1f"), *cells])
    head = ["context", "step ms", *(f"steps for {count} tokens" for count in counts)]
    return [markdown(head, rows)] if rows else []


def share(records: Records) -> str:
    """Return a sentence on the time of a decode step outside ONNX Runtime."""
    found = records.of("share")
    part, own, step = (middle(found, name) or 0.0 for name in ("share", "own", "step"))
    return (
        f"Of a decode step of {step / 1e3:.2f} ms, {own:.0f} µs ({part:.1%}".replace("%", " %")
        + ") are spent outside ONNX Runtime's pass."
    )


def profile(records: Records, read: Mapping[str, int]) -> str:
    """Tabulate the modules that take most of a pass; ``read`` is the bytes of weights that each of them reads."""
    found = records.of("profile")[-1]
    within, kernels = found["within"], found["kernels"]
    large = {name: taken for name, taken in kernels.items() if taken >= SMALL * within}
    rows = []
    for name, taken in large.items():
        size = read.get(name, 0)
        reading = [f"{size / 1e6:,.0f}", f"{size / taken / 1e3:.1f}"] if size > LITTLE else ["", ""]
        rows.append([name, percent(taken / within), *reading])
    rows.append(["other kernels", percent(sum(kernels.values()) / within - sum(large.values()) / within), "", ""])
    rows.append(["between kernels", percent(1 - sum(kernels.values()) / within), "", ""])
    return markdown(["module and operator", "of a pass", "reads MB", "GB/s"], rows)


def _cases(records: Records) -> set[str]:
    return {str(record["case"]) for record in records.of("growth")}
