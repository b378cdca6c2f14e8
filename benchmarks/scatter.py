"""A scatter plot as SVG: labelled points, logarithmic axes, and a line through what nothing else beats."""

import math
from dataclasses import dataclass
from pathlib import Path

from svg import COLOURS, OTHER, TITLE, line, save, text

WIDTH, HEIGHT = 860, 560
LEFT, RIGHT, TOP, BOTTOM = 78, 24, 46, 60
CHARACTER, LINE = 6.4, 13  # of a label, in pixels
HALO = "stroke='white' stroke-width='3'"
_QUARTERS = tuple(1 + quarter / 4 for quarter in range(36))


@dataclass(frozen=True)
class Point:
    """``group`` chooses the colour; ``x`` and ``y`` are positive."""

    label: str
    group: str
    x: float
    y: float


def draw(path: Path, points: list[Point], *, title: str, x_label: str, y_label: str, more_is_better: bool) -> None:
    """Write the plot; ``more_is_better`` says which end of the horizontal axis is the good one (low y always is)."""
    low, high = _span([p.x for p in points])
    bottom, top = _span([p.y for p in points])

    def place(x: float, y: float) -> tuple[float, float]:
        across = LEFT + (math.log10(x) - low) / (high - low) * (WIDTH - LEFT - RIGHT)
        return across, TOP + (top - math.log10(y)) / (top - bottom) * (HEIGHT - TOP - BOTTOM)

    parts = [text(WIDTH / 2, 24, title, "middle", "#111111", TITLE)]
    for tick in _ticks(low, high):
        across, _ = place(tick, 1)
        parts.append(line(across, TOP, across, HEIGHT - BOTTOM, "#eeeeee"))
        parts.append(text(across, HEIGHT - BOTTOM + 18, f"{tick:g}", "middle", "#444444"))
    for tick in _ticks(bottom, top):
        _, down = place(1, tick)
        parts.append(line(LEFT, down, WIDTH - RIGHT, down, "#eeeeee"))
        parts.append(text(LEFT - 8, down + 4, f"{tick:.6g}", "end", "#444444"))
    parts.append(text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 16, x_label, "middle", "#111111"))
    turn = f"transform='rotate(-90 18 {HEIGHT / 2})'"
    parts.append(text(18, HEIGHT / 2, y_label, "middle", "#111111", turn))
    corners = " ".join("{:.1f},{:.1f}".format(*place(p.x, p.y)) for p in front(points, more_is_better))
    parts.append(f"<polyline points='{corners}' fill='none' stroke='#999999' stroke-dasharray='4 4'/>")
    spots = [place(p.x, p.y) for p in points]
    taken = [(x - 6, y - 6, x + 6, y + 6) for x, y in spots]
    for point, (x, y) in zip(points, spots, strict=True):
        colour = COLOURS.get(point.group, OTHER)
        parts.append(f"<circle cx='{x:.1f}' cy='{y:.1f}' r='5' fill='{colour}' stroke='white'/>")
        parts.append(_label(point.label, x, y, colour, taken))
    for number, group in enumerate(g for g in [*COLOURS, ""] if any(p.group == g for p in points)):
        down = TOP + 16 + 18 * number
        x = LEFT + 14 if more_is_better else WIDTH - RIGHT - 150
        parts.append(f"<circle cx='{x}' cy='{down - 4}' r='5' fill='{COLOURS.get(group, OTHER)}'/>")
        parts.append(text(x + 12, down, group, "start", "#111111"))
    save(path, WIDTH, HEIGHT, parts)


def front(points: list[Point], more_is_better: bool) -> list[Point]:
    """The points than which none is both better in x and lower in y, from worst x to best."""
    kept: list[Point] = []
    for point in sorted(points, key=lambda p: (-p.x if more_is_better else p.x, p.y)):
        if not kept or point.y < kept[-1].y:
            kept.append(point)
    return kept[::-1]


def _label(words: str, x: float, y: float, colour: str, taken: list[tuple[float, float, float, float]]) -> str:
    """The text beside its point, at the first of several places where it covers nothing."""
    wide = CHARACTER * len(words)
    for distance in range(0, 60, 6):
        for side, down in ((1, 0), (-1, 0), (1, -1), (1, 1), (-1, -1), (-1, 1), (0, -1), (0, 1)):
            left = x + (9 if side > 0 else -9 - wide if side < 0 else -wide / 2)
            base = y + 4 + down * (10 + distance)
            box = (left, base - LINE + 3, left + wide, base + 3)
            inside = box[0] > LEFT and box[2] < WIDTH - 2 and box[1] > TOP - 8 and box[3] < HEIGHT - BOTTOM
            if inside and not any(_overlap(box, other) for other in taken):
                taken.append(box)
                return _labelled(left, base, words, colour)
    return _labelled(x + 9, y + 4, words, colour)


def _labelled(x: float, y: float, words: str, colour: str) -> str:
    """The text over its own white outline; twice, since not every viewer knows which of the two to paint first."""
    return text(x, y, words, "start", colour, HALO) + text(x, y, words, "start", colour)


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _span(values: list[float]) -> tuple[float, float]:
    """The exponents of ten that an axis begins and ends with."""
    low, high = math.log10(min(values)), math.log10(max(values))
    room = (high - low or 1.0) * 0.07
    return low - room, high + room


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers between two exponents: the more steps in a decade, the fewer decades there are."""
    steps = (1, 2, 5) if high - low > 1 else (1, 1.5, 2, 3, 4, 5, 6, 8) if high - low > 0.4 else _QUARTERS
    ticks = [step * 10.0**power for power in range(math.floor(low), math.ceil(high) + 1) for step in steps]
    return [tick for tick in ticks if low <= math.log10(tick) <= high]
