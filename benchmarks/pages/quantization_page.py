"""The table and the plots of quantization.md."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..artifacts.sizes import disk_bytes, step_bytes
from ..artifacts.store import ArtifactStore
from ..artifacts.variants import BASELINE, REFERENCE, Variant
from ..harness.records import Record, Records
from . import plots
from .generated import fill
from .numbers import kl, markdown, middle, ratio, shown, value

PREFILL = 512
FIRST = ("tool", "variant", "method", "bits", "block", "disk MB", "MB per token")
LAST = ("decode tok/s", f"× {BASELINE}", "prefill tok/s", "load s", "peak RSS MB", "made in s", "with peak MB")
WORDS = 5  # columns on the left that are not numbers
SIZE, SPEED = "quantization-size.svg", "quantization-speed.svg"
KL_AXIS = "KL divergence to fp32, nats per token (lower is better)"


@dataclass(frozen=True)
class Measured:
    """The figures of a variant: bytes on disk and of a decode step, how it was made, its quality and its speed."""

    variant: Variant
    disk: int
    step: int
    making: dict[str, Any]
    quality: Record
    speed: list[Record]


def measured(variants: Sequence[Variant], records: Records, store: ArtifactStore) -> list[Measured]:
    """Return the variants whose quality is recorded, the smallest on disk first."""
    found = []
    for variant in variants:
        quality, path = records.of("quality", variant.name), store.path(variant)
        if quality and path.exists():
            disk, step = disk_bytes(variant, path), step_bytes(variant, path)
            speed = records.of("speed", variant.name)
            found.append(Measured(variant, disk, step, store.making(variant), quality[-1], speed))
    return sorted(found, key=lambda item: item.disk)


def write(folder: Path, found: Sequence[Measured]) -> None:
    """Fill the generated block of ``folder/quantization.md``, and draw the plots beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    images = [f"![KL against size]({SIZE})"]
    draw_sizes(folder / SIZE, found)
    if any(one.speed for one in found):
        images.append(f"![KL against decode speed]({SPEED})")
        draw_speeds(folder / SPEED, found)
    fill(folder / "quantization.md", "Quantization", "quantization.py", "\n\n".join([table(found), "\n".join(images)]))


def table(found: Sequence[Measured]) -> str:
    """Return a Markdown table with a row for each variant, in the order given, and columns for each text."""
    baseline = next((one.speed for one in found if one.variant.name == BASELINE), [])
    names = texts_of(found)
    ratios = f"perplexity ratio: {' / '.join(names)}"
    rows = []
    for one in found:
        variant, quality = one.variant, one.quality
        by_text = [quality["texts"][name] for name in names]
        first = middle(one.speed, f"first.{PREFILL}")
        rows.append(
            [
                *(variant.tool, variant.name, variant.method, variant.bits, variant.block),
                *(f"{one.disk / 1e6:.0f}", f"{one.step / 1e6:.0f}", kl(quality["kl"])),
                *(kl(figures["kl"]) for figures in by_text),
                f"{quality['top1']:.1%}".replace("%", " %"),
                " / ".join(f"{figures['perplexity_ratio']:.4f}" for figures in by_text),
                *(shown(middle(one.speed, "decode"), ".1f"), shown(ratio(one.speed, baseline, "decode"), ".2f")),
                shown(PREFILL / first if first else None, ".0f"),
                *(shown(middle(one.speed, "load"), ".1f"), shown(middle(one.speed, "peak"), ".0f")),
                *(shown(value(one.making, "seconds"), ".0f"), shown(value(one.making, "peak"), ".0f")),
            ]
        )
    head = (*FIRST, "KL", *(f"KL: {name}" for name in names), "top-1", ratios, *LAST)
    return markdown(head, rows, left=WORDS)


def texts_of(found: Sequence[Measured]) -> list[str]:
    """Return the names of the texts, which are the same for every variant."""
    return list(found[0].quality["texts"]) if found else []


def draw_sizes(path: Path, found: Sequence[Measured]) -> None:
    """Plot KL against MB on disk, a panel for each text; the reference has no divergence."""
    label = "size on disk, MB (smaller is better)"
    sizes = {one.variant.name: one.disk / 1e6 for one in found}
    _draw(path, found, sizes, "Divergence and size on disk", label, more_is_better=False)


def draw_speeds(path: Path, found: Sequence[Measured]) -> None:
    """Plot KL against decode speed in tokens/s, a panel for each text."""
    speeds = {one.variant.name: speed for one in found if (speed := middle(one.speed, "decode")) is not None}
    label = "decode, tokens/s (more is better)"
    _draw(path, found, speeds, "Divergence and decode speed", label, more_is_better=True)


def _draw(
    path: Path, found: Sequence[Measured], x: Mapping[str, float], title: str, label: str, *, more_is_better: bool
) -> None:
    chosen = [one for one in found if one.variant.name in x and one.variant.name != REFERENCE]
    panels = {
        text: [
            plots.Point(one.variant.name, one.variant.tool, x[one.variant.name], one.quality["texts"][text]["kl"])
            for one in chosen
        ]
        for text in texts_of(found)
    }
    plots.scatter(path, panels, title=title, x_label=label, y_label=KL_AXIS, more_is_better=more_is_better)
