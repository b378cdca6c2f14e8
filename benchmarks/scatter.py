"""A scatter plot as SVG: labelled points, logarithmic axes, and a line through what nothing else beats."""

import math
from dataclasses import dataclass
from html import escape
from pathlib import Path

WIDTH, HEIGHT = 860, 560
LEFT, RIGHT, TOP, BOTTOM = 78, 24, 46, 60
COLOURS = {"intaglio": "#0b6e8f", "onnxruntime-genai": "#d1495b", "llama.cpp": "#8a6d1d", "OpenVINO": "#6a4c93"}
OTHER = "#555555"
STYLE = "font-family='system-ui, sans-serif' font-size='12'"
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

    parts = [f"<rect width='{WIDTH}' height='{HEIGHT}' fill='white'/>"]
    parts.append(_text(WIDTH / 2, 24, title, "middle", "#111111", "font-size='15' font-weight='600'"))
    for tick in _ticks(low, high):
        across, _ = place(tick, 1)
        parts.append(_line(across, TOP, across, HEIGHT - BOTTOM, "#eeeeee"))
        parts.append(_text(across, HEIGHT - BOTTOM + 18, f"{tick:g}", "middle", "#444444"))
    for tick in _ticks(bottom, top):
        _, down = place(1, tick)
        parts.append(_line(LEFT, down, WIDTH - RIGHT, down, "#eeeeee"))
        parts.append(_text(LEFT - 8, down + 4, f"{tick:.6g}", "end", "#444444"))
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 16, x_label, "middle", "#111111"))
    turn = f"transform='rotate(-90 18 {HEIGHT / 2})'"
    parts.append(_text(18, HEIGHT / 2, y_label, "middle", "#111111", turn))
    line = " ".join("{:.1f},{:.1f}".format(*place(p.x, p.y)) for p in front(points, more_is_better))
    parts.append(f"<polyline points='{line}' fill='none' stroke='#999999' stroke-dasharray='4 4'/>")
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
        parts.append(_text(x + 12, down, group, "start", "#111111"))
    size = f"viewBox='0 0 {WIDTH} {HEIGHT}' width='{WIDTH}' height='{HEIGHT}'"
    path.write_text(f"<svg xmlns='http://www.w3.org/2000/svg' {size} {STYLE}>\n" + "\n".join(parts) + "\n</svg>\n")


def front(points: list[Point], more_is_better: bool) -> list[Point]:
    """The points than which none is both better in x and lower in y, from worst x to best."""
    kept: list[Point] = []
    for point in sorted(points, key=lambda p: (-p.x if more_is_better else p.x, p.y)):
        if not kept or point.y < kept[-1].y:
            kept.append(point)
    return kept[::-1]


def _label(text: str, x: float, y: float, colour: str, taken: list[tuple[float, float, float, float]]) -> str:
    """The text beside its point, at the first of several places where it covers nothing."""
    wide = CHARACTER * len(text)
    for distance in range(0, 60, 6):
        for side, down in ((1, 0), (-1, 0), (1, -1), (1, 1), (-1, -1), (-1, 1), (0, -1), (0, 1)):
            left = x + (9 if side > 0 else -9 - wide if side < 0 else -wide / 2)
            base = y + 4 + down * (10 + distance)
            box = (left, base - LINE + 3, left + wide, base + 3)
            inside = box[0] > LEFT and box[2] < WIDTH - 2 and box[1] > TOP - 8 and box[3] < HEIGHT - BOTTOM
            if inside and not any(_overlap(box, other) for other in taken):
                taken.append(box)
                return _labelled(left, base, text, colour)
    return _labelled(x + 9, y + 4, text, colour)


def _labelled(x: float, y: float, text: str, colour: str) -> str:
    """The text over its own white outline; twice, since not every viewer knows which of the two to paint first."""
    return _text(x, y, text, "start", colour, HALO) + _text(x, y, text, "start", colour)


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


def _line(x1: float, y1: float, x2: float, y2: float, colour: str) -> str:
    return f"<line x1='{x1:.1f}' y1='{y1:.1f}' x2='{x2:.1f}' y2='{y2:.1f}' stroke='{colour}'/>"


def _text(x: float, y: float, text: str, anchor: str, colour: str, more: str = "") -> str:
    return f"<text x='{x:.1f}' y='{y:.1f}' text-anchor='{anchor}' fill='{colour}' {more}>{escape(text)}</text>"
