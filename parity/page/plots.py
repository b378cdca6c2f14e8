"""Plots as inline SVG: axes, lines, dots and heat, in the colours of the page around them.

Horizontal positions are percentages of the width, so that a plot fits every screen while its text keeps its size;
vertical positions are pixels. Lines and cells are in a stretched inner SVG. Colours are classes of report.css.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from .numerals import tick
from .visible import escaped

LEVELS = 9
"""Shades of heat: the classes ``h0`` (least) to ``h8``."""
LEFT, RIGHT, TOP, BOTTOM = 5.0, 2.0, 18, 26
"""The margins: percent on the sides, pixels above and below."""
NEAR = 4.0
"""Percent of the width that a mark's label needs."""
UNITS = 1000
"""The width of the inner SVG."""


@dataclass(frozen=True)
class Axis:
    """An axis from ``low`` to ``high``; a logarithmic one shows values below ``low`` at ``low``."""

    low: float
    high: float
    log: bool = False

    def share(self, value: float) -> float:
        """Return the position of a value on the axis, from 0 to 1."""
        if self.log:
            low, high, value = math.log10(self.low), math.log10(self.high), math.log10(max(value, self.low))
        else:
            low, high = self.low, self.high
        return min(max((value - low) / (high - low), 0.0), 1.0)

    def ticks(self) -> list[float]:
        """Return a few round numbers on the axis."""
        if not self.log:
            step = _round_step((self.high - self.low) / 5)
            first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
            return [number * step for number in range(first, last + 1)]
        low, high = math.log10(self.low), math.log10(self.high)
        every = max(1, math.ceil((high - low) / 6))
        steps = (1, 2, 5) if high - low < 2 else (1,)
        powers = range(math.floor(low), math.ceil(high) + 1)
        found = [step * 10.0**power for power in powers if power % every == 0 for step in steps]
        return [value for value in found if low - 1e-9 <= math.log10(value) <= high + 1e-9]


def log_axis(values: Iterable[float], decades: int = 12, floor: float = 0.0) -> Axis:
    """Return a logarithmic axis with round ends around the positive values.

    It spans about ``decades`` powers of ten at most, and does not begin far below ``floor``.
    """
    positive = [value for value in values if 0 < value < math.inf]
    if not positive:
        return Axis(0.1, 1.0, log=True)
    high = max(positive)
    low = max(min(positive), high * 10.0**-decades, min(floor, high / 10))
    steps = (1.0, 2.0, 5.0, 10.0) if high / low < 100 else (1.0, 10.0)
    low, high = _around(low, steps)[0], _around(high, steps)[1]
    return Axis(min(low, _around(high / 5, steps)[0]), high, log=True)


def _around(value: float, steps: tuple[float, ...]) -> tuple[float, float]:
    """Return the nearest multiples of a power of ten by one of the steps, below and above the value."""
    power = math.floor(math.log10(value) + 1e-9)
    found = [float(f"{step:g}e{power}") for step in steps]
    below = [number for number in found if number <= value * (1 + 1e-9)]
    return below[-1], next(number for number in found if number >= value * (1 - 1e-9))


def level(share: float) -> int:
    """Return the shade of a share between 0 and 1."""
    return min(max(int(share * LEVELS), 0), LEVELS - 1)


@dataclass
class Plot:
    """A drawing of two axes. ``name`` is unique on its page; ``title`` and ``description`` are its
    accessible name and description; the title is also the tooltip."""

    name: str
    title: str
    description: str
    x: Axis
    y: Axis
    height: int
    bottom: int = BOTTOM
    left: float = LEFT
    right: float = RIGHT
    parts: list[str] = field(default_factory=list)

    def across(self, x: float) -> float:
        return self.left + self.x.share(x) * (100 - self.left - self.right)

    def down(self, y: float) -> float:
        return TOP + (1 - self.y.share(y)) * (self.height - TOP - self.bottom)

    def grid(self, show: Callable[[float], str] = tick) -> None:
        """Draw horizontal lines with their values at the left."""
        for value in self.y.ticks():
            y = self.down(value)
            self.parts.append(f'<line class="grid" x1="0" x2="100%" y1="{y:.1f}" y2="{y:.1f}"/>')
            self.parts.append(f'<text class="tick" x="0" y="{y - 4:.1f}">{escaped(show(value))}</text>')

    def x_label(self, x: float, text: str, anchor: str = "middle") -> None:
        place = f'x="{self.across(x):.2f}%" y="{self.height - 6}"'
        self.parts.append(f'<text class="tick" text-anchor="{anchor}" {place}>{escaped(text)}</text>')

    def line(self, points: Sequence[tuple[float, float]], kind: str = "line") -> None:
        path = " ".join(f"{self.x.share(x) * UNITS:.1f},{self.down(y):.1f}" for x, y in points)
        self.stretch(f'<polyline class="{kind}" points="{path}"/>')

    def stretch(self, drawing: str) -> None:
        """Add a drawing between the margins; x is from 0 to ``UNITS``, y in pixels."""
        place = f'x="{self.left}%" y="0" width="{100 - self.left - self.right}%" height="{self.height}"'
        self.parts.append(
            f'<svg {place} viewBox="0 0 {UNITS} {self.height}" preserveAspectRatio="none">{drawing}</svg>'
        )

    def dot(self, x: float, y: float, title: str = "", kind: str = "dot", radius: float = 3) -> None:
        place = f'cx="{self.across(x):.2f}%" cy="{self.down(y):.1f}" r="{radius:g}"'
        inside = f"><title>{escaped(title)}</title></circle>" if title else "/>"
        self.parts.append(f'<circle class="{kind}" {place}{inside}')

    def uprights(self, marks: Mapping[int, str]) -> None:
        """Draw dashed vertical lines with a label at the top of each; labels that would overlap are left out."""
        bottom, last = self.height - self.bottom, -math.inf
        words = []
        for x, text in sorted(marks.items()):
            at = self.across(x)
            self.parts.append(f'<line class="mark" x1="{at:.2f}%" x2="{at:.2f}%" y1="4" y2="{bottom}"/>')
            if at - last >= NEAR:
                anchor, aside = ("end", -6) if at > (60 if len(text) > 6 else 94) else ("start", 6)
                place = f'x="{at:.2f}%" dx="{aside}" y="14"'
                words.append(f'<text class="marked" text-anchor="{anchor}" {place}>{escaped(text)}</text>')
                last = at
        self.parts += words

    def cells(self, cells: Iterable[tuple[float, float, float, float, int]]) -> None:
        """Draw rectangles (left, top, right, bottom, level), x in ``UNITS``, y in pixels: one path for each shade."""
        paths: dict[int, list[str]] = {}
        for left, top, right, bottom, shade in cells:
            wide = f"{right - left:.5g}"
            paths.setdefault(shade, []).append(f"M{left:.5g} {top:.5g}h{wide}V{bottom:.5g}h-{wide}z")
        drawn = "".join(f'<path class="h{shade}" d="{"".join(paths[shade])}"/>' for shade in sorted(paths))
        self.stretch(f'<g shape-rendering="crispEdges">{drawn}</g>')

    def svg(self) -> str:
        return picture(self.name, self.title, self.description, self.height, "".join(self.parts))


def picture(name: str, title: str, description: str, height: float, inside: str) -> str:
    """Return an SVG as wide as its parent, with an accessible name and description."""
    about = f'<title id="{name}-title">{escaped(title)}</title><desc id="{name}-about">{escaped(description)}</desc>'
    labels = f'role="img" aria-labelledby="{name}-title" aria-describedby="{name}-about"'
    return f'<svg class="plot" {labels} width="100%" height="{height:g}">{about}{inside}</svg>'


def _round_step(step: float) -> float:
    power = 10.0 ** math.floor(math.log10(step))
    return next(nice * power for nice in (1, 2, 5, 10) if step <= nice * power * (1 + 1e-9))
