"""What was measured as a Markdown table and two plots."""

import statistics
from pathlib import Path
from typing import Any

from marks import fill
from rows import BASELINE, REFERENCE, Row
from scatter import Point, draw

Measured = list[tuple[Row, dict[str, Any]]]
COLUMNS = (
    *("tool", "row", "method", "bits", "block", "disk MB", "MB per token", "KL", "KL WikiText / Python", "top-1"),
    *("perplexity ratio", "decode tok/s", f"× {BASELINE}", "prefill tok/s", "load s", "peak RSS MB"),
    *("made in s", "with peak MB"),
)
LEFT_ALIGNED = 5


def write(folder: Path, measured: Measured, windows: int) -> None:
    """``folder/quantization.md``, between its marks if it has them, and the plots beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    measured = sorted(measured, key=lambda item: item[1]["sizes"]["folder"])
    body = table(measured, windows)
    plots = [("KL against size", "quantization-size.svg"), ("KL against decode speed", "quantization-speed.svg")]
    _plot_sizes(folder / plots[0][1], measured, windows)
    if not _plot_speeds(folder / plots[1][1], measured, windows):
        plots.pop()
    images = "\n".join(f"![{label}]({name})" for label, name in plots)
    fill(folder / "quantization.md", "Quantization", "quantization.py", f"{body}\n\n{images}")


def table(measured: Measured, windows: int) -> str:
    """A line for each row, in the order given."""
    rounds = {row.name: figures.get("speed", []) for row, figures in measured}
    lines = [" | ".join(COLUMNS), " | ".join("---" if i < LEFT_ALIGNED else "---:" for i in range(len(COLUMNS)))]
    for row, figures in measured:
        quality, size = figures[f"quality-{windows}"], figures["sizes"]
        making, speed = figures.get("making", {}), rounds[row.name]
        each = [quality["texts"][name]["kl"] for name in sorted(quality["texts"], reverse=True)]
        ratio = against(speed, rounds.get(BASELINE, []))
        cells = (
            *(row.tool, row.name, row.method, row.bits, row.block),
            *(f"{size['folder'] / 1e6:.0f}", f"{size['per_token'] / 1e6:.0f}"),
            *(_kl(quality["kl"]), " / ".join(map(_kl, each))),
            *(f"{quality['top1']:.1%}".replace("%", " %"), f"{quality['perplexity_ratio']:.4f}"),
            *(middle(speed, "decode", ".1f"), f"{ratio:.2f}" if ratio else ""),
            *(middle(speed, "prefill", ".0f"), middle(speed, "load", ".1f"), middle(speed, "peak", ".0f")),
            f"{making['seconds']:.0f}" if making else "",
            f"{making['peak']:.0f}" if making else "",
        )
        lines.append(" | ".join(cells))
    return "\n".join(f"| {line} |" for line in lines)


def middle(rounds: list[dict[str, float]], figure: str, style: str) -> str:
    """The median over the rounds, or nothing."""
    return format(statistics.median(r[figure] for r in rounds), style) if rounds else ""


def against(rounds: list[dict[str, float]], baseline: list[dict[str, float]]) -> float | None:
    """The median, over the rounds that both took part in, of the ratio of their decode speeds."""
    others = {r["round"]: r["decode"] for r in baseline}
    ratios = [r["decode"] / others[r["round"]] for r in rounds if r["round"] in others]
    return statistics.median(ratios) if ratios else None


def _plot_sizes(path: Path, measured: Measured, windows: int) -> None:
    points = [
        Point(row.name, row.tool, figures["sizes"]["folder"] / 1e6, figures[f"quality-{windows}"]["kl"])
        for row, figures in measured
        if row.name != REFERENCE
    ]
    draw(
        path,
        points,
        title="What is lost, and what it takes on disk",
        x_label="size on disk, MB (smaller is better)",
        y_label="KL divergence to fp32, nats per token (lower is better)",
        more_is_better=False,
    )


def _plot_speeds(path: Path, measured: Measured, windows: int) -> bool:
    points = [
        Point(row.name, row.tool, float(middle(speed, "decode", ".3f")), figures[f"quality-{windows}"]["kl"])
        for row, figures in measured
        if (speed := figures.get("speed")) and row.name != REFERENCE
    ]
    if points:
        draw(
            path,
            points,
            title="What is lost, and how fast it runs",
            x_label="decode, tokens/s (more is better)",
            y_label="KL divergence to fp32, nats per token (lower is better)",
            more_is_better=True,
        )
    return bool(points)


def _kl(value: float) -> str:
    return f"{value:.3f}" if value >= 0.01 else f"{value:.5f}"
