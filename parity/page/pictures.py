"""The pictures of the report: error by layer, divergence by position, calibration of the logits, budgets."""

import math
from collections.abc import Sequence
from itertools import pairwise

from ..report.result import Finding, LayerError
from .numerals import number, times
from .paths import kind_of, layer_of, short
from .plots import LEVELS, UNITS, Axis, Plot, level, log_axis, picture

COLUMNS = 160
"""Largest number of columns of the heat map of divergences; more positions share columns."""
ROW = (5, 16)
"""Smallest and largest height of a window's row, in pixels."""
DECADES, FLOOR = 8, 1e-8
"""Decades on a scale of divergences, and its lower end: smaller values are rounding of float32."""
FEW = 400
"""Largest number of pairs drawn as dots; more are drawn as density."""
BINS = 64


def error_by_layer(layers: Sequence[LayerError], findings: Sequence[Finding]) -> str:
    """Draw the error of the hidden state after each module, on a logarithmic scale, and mark the findings."""
    axis = log_axis(entry.error for entry in layers)
    last, most = layers[-1], max(layers, key=lambda entry: entry.error)
    about = f"{len(layers)} modules; {number(last.error)} behind the last, at most {number(most.error)}, {most.module}."
    plot = Plot("layers", "Error by layer", about, Axis(-0.5, len(layers) - 0.5), axis, 280)
    plot.grid()
    labelled = {entry.module: index for index, entry in enumerate(layers)}
    _layer_labels(plot, layers)
    marked: dict[int, list[int]] = {}
    for order, finding in enumerate(findings, 1):
        inside = [index for module, index in labelled.items() if f"{finding.module}.".startswith(f"{module}.")]
        if inside:
            marked.setdefault(inside[0], []).append(order)
    alone = short(findings[0].module) if len(findings) == 1 else ""
    plot.uprights({index: alone or _numbers(orders) for index, orders in marked.items()})
    plot.line([(index, entry.error) for index, entry in enumerate(layers)])
    for index, entry in enumerate(layers):
        kind = "dot" if entry.error > axis.low else "dot none"
        plot.dot(index, entry.error, f"{entry.module}: {number(entry.error)}", kind)
    return plot.svg()


def _numbers(orders: list[int]) -> str:
    return ", ".join(map(str, orders)) if len(orders) < 3 else f"{orders[0]}, {orders[1]} …"


def _layer_labels(plot: Plot, layers: Sequence[LayerError]) -> None:
    last = len(layers) - 1
    every = next(step for step in (1, 2, 4, 8, 16, 32, 64) if len(layers) / step <= 13)
    for index, entry in enumerate(layers):
        number_ = layer_of(entry.module)
        ends = index in (0, last)
        if number_ is None and ends:
            plot.x_label(index, "emb." if kind_of(entry.module) == "embed_tokens" else kind_of(entry.module))
        elif number_ is not None and number_ % every == 0 and (ends or min(index, last - index) >= 0.7 * every):
            plot.x_label(index, str(number_))


def divergence_by_position(windows: Sequence[Sequence[float]]) -> str:
    """Draw the mean and largest divergence at each position; below, a heat map with a row for each window."""
    longest = max(map(len, windows))
    columns = min(longest, COLUMNS)
    binned = [_binned(window, longest, columns) for window in windows]
    values = [value for window in windows for value in window]
    axis = log_axis([*values, sum(values) / len(values)], DECADES, FLOOR)
    row = min(max(160 // len(windows), ROW[0]), ROW[1])
    lines, strip = 200, row * len(windows)
    worst = max(values)
    at = next((w, window.index(worst)) for w, window in enumerate(windows) if worst in window)
    about = (
        f"{len(windows)} windows of up to {longest} positions; mean {number(sum(values) / len(values))} nats, "
        f"at most {number(worst)} at position {at[1]} of window {at[0] + 1}."
    )
    plot = Plot("positions", "KL divergence by position", about, Axis(0, longest), axis, lines + strip + 34, strip + 34)
    plot.grid()
    columned = [[cells[column] for cells in binned if column < len(cells)] for column in range(columns)]
    middle = [(column + 0.5) * longest / columns for column in range(columns)]
    if len(windows) > 1 or longest > columns:
        plot.line([(x, max(top for _, top in cells)) for x, cells in zip(middle, columned, strict=True)], "line peak")
    plot.line([(x, sum(m for m, _ in cells) / len(cells)) for x, cells in zip(middle, columned, strict=True)])
    plot.cells(
        (
            column * UNITS / columns,
            lines + 8 + index * row,
            (column + 1) * UNITS / columns,
            lines + 8 + (index + 1) * row - (1 if row >= 8 else 0),
            level(axis.share(top)),
        )
        for index, cells in enumerate(binned)
        for column, (_, top) in enumerate(cells)
    )
    for value in plot.x.ticks():
        plot.x_label(value, f"{value:,.0f}", "start" if value == 0 else "middle" if value < longest * 0.97 else "end")
    return plot.svg()


def heat_range(windows: Sequence[Sequence[float]]) -> tuple[float, float]:
    """Return the divergences of the lightest and the darkest shade of the heat map."""
    axis = log_axis((value for window in windows for value in window), DECADES, FLOOR)
    return axis.low, axis.high


def _binned(window: Sequence[float], longest: int, columns: int) -> list[tuple[float, float]]:
    """Return mean and maximum of each column's positions, for the columns that the window covers."""
    edges = [round(column * longest / columns) for column in range(columns + 1)]
    pieces = [window[first:last] for first, last in pairwise(edges)]
    return [(sum(piece) / len(piece), max(piece)) for piece in pieces if piece]


OVERFLOWN = 1e29
"""A report stores infinities as numbers above this."""


def finite(pairs: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the pairs that can be plotted."""
    return [pair for pair in pairs if max(map(abs, pair)) < OVERFLOWN]


def calibration(pairs: Sequence[tuple[float, float]], unit: str) -> str:
    """Draw the artifact's values against the source's, with the diagonal of equal values."""
    values = [value for pair in pairs for value in pair]
    low, high = _span(values)
    about = f"{len(pairs):,} pairs from {number(low)} to {number(high)}."
    plot = Plot("calibration", f"Artifact's {unit} against the source's", about, Axis(low, high), Axis(low, high), 340)
    plot.grid()
    _scatter(plot, pairs)
    plot.line([(low, low), (high, high)], "line even")
    _value_labels(plot)
    return plot.svg()


def differences(pairs: Sequence[tuple[float, float]], unit: str) -> str:
    """Draw artifact minus source against the source."""
    points = [(source, artifact - source) for source, artifact in pairs]
    reach = max(abs(y) for _, y in points) * 1.05 or 1.0
    low, high = _span([x for x, _ in points])
    about = f"{len(points):,} pairs; the greatest difference among them is {number(reach / 1.05)}."
    plot = Plot(
        "differences", f"Difference against the source's {unit}", about, Axis(low, high), Axis(-reach, reach), 340
    )
    plot.grid()
    _scatter(plot, points)
    plot.line([(low, 0), (high, 0)], "line even")
    _value_labels(plot)
    return plot.svg()


def fit(pairs: Sequence[tuple[float, float]]) -> tuple[float, float] | None:
    """Return the least-squares slope of the artifact's values over the source's, and their correlation.

    None if there are fewer than three pairs, or if all values of one side are equal.
    """
    count = len(pairs)
    if count < 3:
        return None
    mean_x, mean_y = sum(x for x, _ in pairs) / count, sum(y for _, y in pairs) / count
    xx = sum((x - mean_x) ** 2 for x, _ in pairs)
    yy = sum((y - mean_y) ** 2 for _, y in pairs)
    xy = sum((x - mean_x) * (y - mean_y) for x, y in pairs)
    return (xy / xx, xy / math.sqrt(xx * yy)) if xx > 0 and yy > 0 else None


def _span(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    room = (high - low) * 0.03 or abs(high) * 0.1 or 1.0
    return low - room, high + room


def _value_labels(plot: Plot) -> None:
    for value in plot.x.ticks():
        plot.x_label(value, f"{value:,.6g}".replace("-", "\N{MINUS SIGN}"))


def _scatter(plot: Plot, points: Sequence[tuple[float, float]]) -> None:
    if len(points) <= FEW:
        for x, y in points:
            plot.dot(x, y, kind="dot faint")
        return
    counts: dict[tuple[int, int], int] = {}
    for x, y in points:
        cell = (min(int(plot.x.share(x) * BINS), BINS - 1), min(int(plot.y.share(y) * BINS), BINS - 1))
        counts[cell] = counts.get(cell, 0) + 1
    most = math.log(max(counts.values()) + 1)
    wide, tall = UNITS / BINS, (plot.down(plot.y.low) - plot.down(plot.y.high)) / BINS
    bottom = plot.down(plot.y.low)
    plot.cells(
        (column * wide, bottom - (line + 1) * tall, (column + 1) * wide, bottom - line * tall, _density(count, most))
        for (column, line), count in counts.items()
    )


def _density(count: int, most: float) -> int:
    """Return the shade of a count; at least the third, so that a single pair is visible."""
    return max(2, level(math.log(count + 1) / most * (1 - 1 / LEVELS / 2)))


def over_budget(name: str, error: float, budget: float, axis: Axis) -> str:
    """Draw a finding's error and its budget, on the logarithmic scale that all findings share."""
    excess = f", {times(error / budget)} as much" if budget else ""
    about = f"The budget is {number(budget)}, the error {number(error)}{excess}."
    plot = Plot(name, "Error against its budget", about, axis, Axis(0, 1), 22, left=0, right=1)
    allowed, reached = axis.share(budget) * UNITS, axis.share(error) * UNITS
    plot.stretch(
        f'<rect class="allowed" width="{allowed:.1f}" y="9" height="4"/>'
        f'<rect class="excess" x="{allowed:.1f}" width="{max(reached - allowed, 0):.1f}" y="9" height="4"/>'
    )
    at = f"{plot.across(budget):.2f}%"
    plot.parts.append(f'<line class="limit" x1="{at}" x2="{at}" y1="2" y2="20"/>')
    plot.parts.append(f'<circle class="dot" cx="{plot.across(error):.2f}%" cy="11" r="5"/>')
    return plot.svg()


def tokens(name: str, agreed: int, count: int, undecided: bool = False) -> str:
    """Draw a continuation as a strip with a cell for each token; the first that differs is taller."""
    what = f"All {count} tokens agree." if agreed >= count else f"{agreed} of {count} tokens agree, then one differs."
    cells = []
    for index in range(count):
        parts = "undecided" if undecided else "differs"
        kind = "agreed" if index < agreed else parts if index == agreed else "after"
        top, tall = (0, 14) if index == agreed else (3, 8)
        left, wide = 100 * index / count, 100 / count
        cells.append(f'<rect class="{kind}" x="{left:.3f}%" width="{wide * 0.82:.3f}%" y="{top}" height="{tall}"/>')
    return picture(name, "Tokens as the source's", what, 14, "".join(cells))
