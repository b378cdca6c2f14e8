"""The generated part of hybrid.md: both attentions and both caches over the length of the text, and its plots."""

from collections.abc import Sequence
from pathlib import Path

from ..harness.measurements import INT8_CACHE
from ..harness.records import Record, Records
from . import plots
from .generated import fill
from .numbers import markdown, middle, ratio, shown, spread
from .runtime_page import processor

SECTION = "hybrid"
OWN, OTHER = "intaglio", "onnxruntime"
GROWTH, STEPS = "hybrid-growth.svg", "hybrid-steps.svg"


def body(records: Records, shape: str, threads: int) -> str:
    """Return the tables of what was measured; ``shape`` describes the model in words."""
    text = [f"- {shape}", f"- {processor()}, {threads} threads"]
    if cases := cases_of(records):
        text += [figures(records, cases)]
        text += ["Medians of the ratios within each round; above 1 is better for intaglio.", ratios(records, cases)]
    return "\n\n".join(text)


def cases_of(records: Records) -> list[tuple[int, str, str]]:
    """Return the tokens, the attention and the record's case of each measurement, short texts first."""
    found = {(record["context"], record["name"], record["case"]) for record in records.of(SECTION)}
    return sorted(found, key=lambda one: (one[0], one[1] != OTHER, one[2]))


def figures(records: Records, cases: Sequence[tuple[int, str, str]]) -> str:
    """Tabulate prefill, decode, the slowest step, and the memory that came to the weights."""
    head = ["tokens", "attention", "cache", "rounds", "prefill tok/s", "decode tok/s", "least to most"]
    head += ["median step, ms", "99 in 100 within", "slowest", "grown by at most, MB"]
    rows = []
    for tokens, name, case in cases:
        found = _found(records, name, case)
        prefill, (least, most) = middle(found, "prefill"), spread(found, "decode") or (None, None)
        cells = [f"{tokens:,}", name, _cache(case), str(len(found))]
        cells += [shown(tokens / prefill if prefill else None, ",.0f"), shown(middle(found, "decode"), ".1f")]
        cells += [f"{shown(least, '.1f')} to {shown(most, '.1f')}"]
        cells += [shown(middle(found, figure), ".1f") for figure in ("median", "p99", "slowest")]
        rows.append([*cells, shown(middle(found, "grown"), ",.0f")])
    return markdown(head, rows, left=3)


def ratios(records: Records, cases: Sequence[tuple[int, str, str]]) -> str:
    """Tabulate intaglio's speed over ONNX Runtime's, with either cache."""
    rows = []
    for tokens, name, case in cases:
        if name == OWN and (theirs := records.of(SECTION, OTHER, str(tokens))):
            ours = records.of(SECTION, OWN, case)
            cells = [f"{tokens:,}", _cache(case)]
            rows.append([*cells, *(shown(ratio(theirs, ours, figure), ".2f") for figure in ("prefill", "median"))])
    return markdown(["tokens", "cache", "prefill", "decode"], rows, left=2)


def write(folder: Path, text: str, records: Records) -> None:
    """Fill the generated block of ``folder/hybrid.md``, and draw the plots beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    own = [record for record in records.of(SECTION, OWN) if record["steps"]]
    if own:
        draw_growth(folder / GROWTH, records)
        draw_steps(folder / STEPS, own)
        text += f"\n\n![Decode as the text grows]({GROWTH})\n![Every step after the longest text]({STEPS})"
    fill(folder / "hybrid.md", "Sliding windows", "hybrid.py", text)


def draw_growth(path: Path, records: Records) -> None:
    """Plot intaglio's decode and memory over the length of the text, with the float32 and the int8 cache."""
    panels = {
        f"{heading} (orange: int8 cache)": (_line(records, figure, int8=False), _line(records, figure, int8=True))
        for figure, heading in (("decode", "decode, tokens/s"), ("grown", "memory beside the weights, MB"))
    }
    plots.lines(path, "Decode and memory as the text grows", "tokens before the step", panels, values=True)


def draw_steps(path: Path, own: Sequence[Record]) -> None:
    """Plot each step after the longest text; a buffer that grows would show as a peak."""
    longest = max(record["context"] for record in own)
    found = {record["case"].endswith(INT8_CACHE): record["steps"] for record in own if record["context"] == longest}
    lines = [list(enumerate(found.get(int8, []))) for int8 in (False, True)]
    title = f"Every step after {longest:,} tokens"
    plots.lines(path, title, "steps", {"step, ms (orange: int8 cache)": (lines[0], lines[1])}, values=False)


def _line(records: Records, figure: str, *, int8: bool) -> list[tuple[float, float]]:
    found: list[tuple[float, float]] = []
    for tokens, name, case in cases_of(records):
        if name == OWN and case.endswith(INT8_CACHE) == int8:
            found.append((tokens, middle(_found(records, OWN, case), figure) or 0.0))
    return found


def _found(records: Records, name: str, case: str) -> list[Record]:
    """Return the records of a case, with ``grown``, the most MB that came to the loaded model."""
    return [{**record, "grown": record["peak"] - record["loaded"]} for record in records.of(SECTION, name, case)]


def _cache(case: str) -> str:
    return "int8" if case.endswith(INT8_CACHE) else "float32"
