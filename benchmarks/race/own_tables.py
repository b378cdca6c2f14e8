"""What only intaglio is asked for: growth, speculation, its share of a step, and where the rest goes."""

from collections.abc import Mapping

from .numbers import markdown, middle, shown
from .records import Records
from .tables import percent
from .turns import INT8

SMALL = 0.01  # of a step: what takes less is added up
LITTLE = 1 << 20  # bytes: what reads less is not bound by memory


def growth(records: Records) -> str:
    """Decode and memory at each context, and the steps of one long run."""
    rows = []
    for context, case in sorted((int(case.removesuffix(INT8)), case) for case in _cases(records) if case != "series"):
        found = records.of("growth", case=case)
        cells = [f"{context:,}", "int8" if case.endswith(INT8) else "float32"]
        cells += [shown(middle(found, "decode"), ".1f"), shown(middle(found, "median"), ".1f")]
        cells += [shown(middle(found, "prefill"), ",.1f"), shown(middle(found, "rss"), ",.0f")]
        rows.append([*cells, shown(middle(found, "peak"), ",.0f")])
    head = ["context", "KV cache", "decode tok/s", "step ms", "prefill s", "MB after it", "peak MB"]
    text = markdown(head, rows, left=1)
    kept = [(record["name"], record["int8_cache"]) for record in records.of("quality") if "int8_cache" in record]
    if kept:
        told = (f"{name} {found['kl']:.5f} ({found['top1']:.1%})".replace("%", " %") for name, found in kept)
        text += f"\n\nDivergence from float32 with a KV cache of int8 (and top-1): {', '.join(told)}."
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
    """Seconds with and without, on text that repeats its prompt and on free text."""
    found = records.of("speculation")
    rows = []
    for name, label in (("edit", "a file with one name changed, greedy"), ("free", "free text, drawn")):
        same = all(record[name]["same"] for record in found)
        cells = [label, shown(middle(found, f"{name}.prompt"), ",.0f"), shown(middle(found, f"{name}.new"), ".0f")]
        cells += [shown(middle(found, f"{name}.seconds.{variant}"), ".1f") for variant in ("without", "with", "auto")]
        for gain in ("speedup", "decode"):
            cells += [shown(middle(found, f"{name}.{gain}.{variant}"), ".2f") for variant in ("with", "auto")]
        rows.append([*cells, "yes" if same else "**no**"])
    head = ["", "prompt", "new tokens", "without, s", "with, s", "by itself, s", "× with", "× by itself"]
    head += ["decode alone × with", "× by itself", "same tokens"]
    return markdown(head, rows)


def share(records: Records) -> str:
    """One sentence: what of a decode step is not ONNX Runtime's."""
    found = records.of("share")
    part, own, step = (middle(found, name) or 0.0 for name in ("share", "own", "step"))
    return (
        f"Of a decode step of {step / 1e3:.2f} ms, {own:.0f} µs ({part:.1%}".replace("%", " %")
        + ") are spent outside ONNX Runtime's run."
    )


def profile(records: Records, read: Mapping[str, int]) -> str:
    """The places of a step that take the most of it; ``read`` is the bytes of weights that each place reads."""
    found = records.of("profile")[-1]
    within, kernels = found["within"], found["kernels"]
    large = {place: taken for place, taken in kernels.items() if taken >= SMALL * within}
    rows = []
    for place, taken in large.items():
        size = read.get(place, 0)
        reading = [f"{size / 1e6:,.0f}", f"{size / taken / 1e3:.1f}"] if size > LITTLE else ["", ""]
        rows.append([place, percent(taken / within), *reading])
    rows.append(["other kernels", percent(sum(kernels.values()) / within - sum(large.values()) / within), "", ""])
    rows.append(["between kernels", percent(1 - sum(kernels.values()) / within), "", ""])
    return markdown(["place and operator", "of a run", "reads MB", "GB/s"], rows)


def _cases(records: Records) -> set[str]:
    return {str(record["case"]) for record in records.of("growth")}
