"""The picture of the cases between their limits: one scale for each measure, one dot for each case."""

from dataclasses import fields

from ..report.report import Report
from ..report.result import VERDICTS, Figures, Limit
from ..report.thresholds import measure
from .numerals import number, percent, share, tick
from .plots import Axis, picture
from .visible import escaped
from .words import SHARES
from .words import measure as in_words

ROW, BAR, THICK = 64, 30, 6
ZERO = 3.0
"""Percent of the width for figures of 0, which a logarithmic scale cannot show."""


def margins(report: Report) -> str | None:
    """Return the picture, or None if no case has a figure with a limit."""
    rows: list[str] = []
    descriptions: list[str] = []
    known = {field.name for field in fields(Figures)}
    for limit in report.limits:
        if limit.measure not in known:
            continue
        cases = [(case.name, measure(case.figures, limit.measure)) for case in report.cases if case.figures]
        found = [(name, value) for name, value in cases if value is not None]
        if found:
            name = in_words(limit.measure, report.task)
            show = share if limit.measure in SHARES else number
            worst = max(value for _, value in found)
            descriptions.append(f"{name}: at most {show(worst)}, faithful up to {bound(limit, limit.faithful)}")
            rows.append(_row(limit, found, len(rows) * ROW, name[:1].upper() + name[1:]))
    if not rows:
        return None
    return picture("margins", "The cases between their limits", "; ".join(descriptions), len(rows) * ROW, "".join(rows))


def bound(limit: Limit, value: float) -> str:
    """Return a limit as text; shares in percent."""
    return percent(value) if limit.measure in SHARES else tick(value)


def _row(limit: Limit, found: list[tuple[str, float]], top: int, name: str) -> str:
    positive = [value for _, value in found if value > 0]
    low = min([*positive, (limit.faithful or limit.drifted / 100) / 30, limit.drifted / 30])
    # The second limit is at 70 % of the scale at most, which leaves room for its label.
    axis = Axis(low, max([*positive, low * (limit.drifted / low) ** (1 / 0.7)]), log=True)

    def place(value: float) -> float:
        return ZERO + axis.share(value) * (98 - ZERO) if value > 0 else ZERO / 2

    show = share if limit.measure in SHARES else number
    edges = [0.0, place(limit.faithful) if limit.faithful else ZERO, place(limit.drifted), 100.0]
    middle = top + BAR
    parts = [f'<text class="name" x="0" y="{top + 14}">{escaped(name)}</text>']
    for verdict, left, right in zip(VERDICTS, edges, edges[1:], strict=False):
        place_ = f'x="{left:.2f}%" width="{max(right - left, 0):.2f}%" y="{middle - THICK / 2:g}" height="{THICK}"'
        parts.append(f'<rect class="band {verdict}" {place_}/>')
    words = (f"faithful up to {bound(limit, limit.faithful)}", f"broken above {bound(limit, limit.drifted)}")
    anchors = ("end" if edges[1] > 34 else "start", "start")
    below = (20, 33 if anchors[0] == "start" and edges[2] - edges[1] < 36 else 20)
    for edge, text, anchor, down in zip(edges[1:3], words, anchors, below, strict=True):
        parts.append(f'<line class="limit" x1="{edge:.2f}%" x2="{edge:.2f}%" y1="{middle - 7}" y2="{middle + 7}"/>')
        at = f'text-anchor="{anchor}" x="{edge:.2f}%" y="{middle + down}"'
        parts.append(f'<text class="tick" {at}>{escaped(text)}</text>')
    for case, value in sorted(found, key=lambda pair: pair[1]):
        verdict = VERDICTS[(value > limit.faithful) + (value > limit.drifted)]
        title = f"<title>{escaped(f'{case}: {show(value)}')}</title>"
        parts.append(f'<circle class="case {verdict}" cx="{place(value):.2f}%" cy="{middle}" r="5">{title}</circle>')
    return "".join(parts)
