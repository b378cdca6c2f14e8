"""Bars side by side: one panel for each figure, one bar for each contender, the longest first."""

from dataclasses import dataclass
from pathlib import Path

from svg import COLOURS, OTHER, TITLE, save, text

PANEL, LABELS, GAP, RIGHT = 250, 170, 26, 16
TOP, BAR, STEP = 62, 16, 24
NUMBER = 46  # room for the number behind the longest bar


@dataclass(frozen=True)
class Bar:
    """``group`` chooses the colour."""

    label: str
    group: str
    value: float


def draw(path: Path, title: str, panels: dict[str, list[Bar]]) -> None:
    """Write the plot; ``panels`` by their headings."""
    width = sum(LABELS + PANEL + GAP for _ in panels) - GAP + RIGHT
    height = TOP + STEP * max(len(bars) for bars in panels.values()) + 12
    parts = [text(width / 2, 24, title, "middle", "#111111", TITLE)]
    for number, (heading, bars) in enumerate(panels.items()):
        left = number * (LABELS + PANEL + GAP) + LABELS
        parts.append(text(left, TOP - 12, heading, "start", "#111111", "font-weight='600'"))
        longest = max(bar.value for bar in bars)
        for place, bar in enumerate(sorted(bars, key=lambda bar: -bar.value)):
            top, colour = TOP + STEP * place, COLOURS.get(bar.group, OTHER)
            length = max(1.0, bar.value / longest * (PANEL - NUMBER))
            weight = "font-weight='600'" if bar.group == "intaglio" else ""
            parts.append(text(left - 8, top + BAR - 4, bar.label, "end", "#111111", weight))
            parts.append(f"<rect x='{left}' y='{top}' width='{length:.1f}' height='{BAR}' fill='{colour}'/>")
            parts.append(text(left + length + 5, top + BAR - 4, f"{bar.value:,.0f}", "start", "#444444"))
    save(path, width, height, parts)
