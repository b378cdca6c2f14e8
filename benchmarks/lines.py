"""Lines over one axis: a panel above the other, each with its own vertical axis from zero."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from svg import TITLE, line, save, text

WIDTH, PANEL, GAP = 860, 190, 44
LEFT, RIGHT, TOP, BOTTOM = 78, 24, 56, 50
COLOUR, OTHER = "#0b6e8f", "#c2571a"


@dataclass(frozen=True)
class Panel:
    """``points`` (x, y), joined in their order; ``marks`` shows each of them with its y beside it.

    ``other`` points are joined by a line of another colour.
    """

    heading: str
    points: list[tuple[float, float]]
    marks: bool = False
    other: Sequence[tuple[float, float]] = ()


def draw(path: Path, title: str, x_label: str, panels: list[Panel]) -> None:
    """Write the plot."""
    height = TOP + len(panels) * (PANEL + GAP) - GAP + BOTTOM
    right = max(x for panel in panels for x, _ in panel.points)
    parts = [text(WIDTH / 2, 24, title, "middle", "#111111", TITLE)]

    def across(x: float) -> float:
        return LEFT + x / right * (WIDTH - LEFT - RIGHT)

    for number, panel in enumerate(panels):
        top = TOP + number * (PANEL + GAP)
        highest = 1.1 * max(y for _, y in (*panel.points, *panel.other))

        def down(y: float, top: float = top, highest: float = highest) -> float:
            return top + PANEL * (1 - y / highest)

        parts.append(text(LEFT, top - 10, panel.heading, "start", "#111111", "font-weight='600'"))
        for tick in ticks(highest):
            parts.append(line(LEFT, down(tick), WIDTH - RIGHT, down(tick), "#eeeeee"))
            parts.append(text(LEFT - 8, down(tick) + 4, f"{tick:,g}", "end", "#444444"))
        for points, colour in ((panel.other, OTHER), (panel.points, COLOUR)):
            for (x1, y1), (x2, y2) in pairwise(points):
                parts.append(line(across(x1), down(y1), across(x2), down(y2), colour))
            for x, y in points if panel.marks else []:
                parts.append(f"<circle cx='{across(x):.1f}' cy='{down(y):.1f}' r='4' fill='{colour}' stroke='white'/>")
                parts.append(text(across(x), down(y) - 8, f"{y:,.0f}", "middle", colour))
        if number == len(panels) - 1:
            for tick in ticks(right):
                parts.append(text(across(tick), top + PANEL + 18, f"{tick:,g}", "middle", "#444444"))
    parts.append(text((LEFT + WIDTH - RIGHT) / 2, height - 12, x_label, "middle", "#111111"))
    save(path, WIDTH, height, parts)


def ticks(highest: float) -> list[float]:
    """Round numbers from zero, four to nine of them."""
    power = 10.0 ** math.floor(math.log10(highest))
    step = next(power * part for part in (0.1, 0.2, 0.25, 0.5, 1, 2) if highest / (power * part) < 9)
    return [step * count for count in range(int(highest / step) + 1)]
