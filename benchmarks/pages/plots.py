"""The pictures of the pages, drawn with matplotlib as SVG files that are the same for the same figures."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator
from matplotlib.transforms import Bbox

from ...serving.load.plot import SECOND, STYLE

COLOURS = {
    "intaglio": "#0b6e8f",
    "onnxruntime-genai": "#d1495b",
    "llama.cpp": "#8a6d1d",
    "OpenVINO": "#6a4c93",
    "CTranslate2": "#3a7d44",
    "transformers": "#c77d0a",
}
OTHER = "#555555"


@dataclass(frozen=True)
class Point:
    """A labelled figure of a variant; the tool chooses the colour. A bar has no ``y``."""

    label: str
    tool: str
    x: float
    y: float = 0.0


Line = Sequence[tuple[float, float]]


def bars(path: Path, title: str, panels: Mapping[str, Sequence[Point]]) -> None:
    """Draw a panel of horizontal bars for each heading, the longest bar first, with its ``x`` behind it."""
    most = max(len(points) for points in panels.values())
    with _figure(path, title, (4.4 * len(panels), 1.0 + 0.3 * most)) as figure:
        for axes, (heading, points) in zip(
            figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True
        ):
            ordered = sorted(points, key=lambda point: point.x)
            drawn = axes.barh(
                [point.label for point in ordered],
                [point.x for point in ordered],
                color=[COLOURS.get(point.tool, OTHER) for point in ordered],
            )
            axes.bar_label(drawn, [f"{point.x:,.0f}" for point in ordered], padding=3)
            axes.set_title(heading)
            axes.set_xticks([])
            axes.spines[:].set_visible(False)
            axes.tick_params(left=False)
            axes.margins(x=0.12)


def lines(path: Path, title: str, x_label: str, panels: Mapping[str, tuple[Line, Line]], *, values: bool) -> None:
    """Draw a panel for each heading, one above the other, with a line and a second one that may be empty.

    Vertical axes begin at zero. ``values`` marks each point and writes its y beside it.
    """
    with _figure(path, title, (8.6, 0.6 + 2.4 * len(panels))) as figure:
        column = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
        for axes, (heading, (line, second)) in zip(column, panels.items(), strict=True):
            for points, other, colour in ((second, line, SECOND), (line, second, COLOURS["intaglio"])):
                axes.plot(*_columns(points), color=colour, linewidth=1, marker="o" if values else "")
                for x, y in points if values else ():
                    below = y < dict(other).get(x, y)
                    axes.annotate(
                        f"{y:,.0f}",
                        (x, y),
                        (0, -6 if below else 6),
                        textcoords="offset points",
                        color=colour,
                        ha="center",
                        va="top" if below else "bottom",
                    )
            axes.set_title(heading)
            axes.set_xlim(left=0)
            axes.set_ylim(0, 1.15 * max(y for _, y in (*line, *second)))
            axes.grid(axis="y")
            axes.xaxis.set_major_formatter(FuncFormatter(_thousands))
            axes.yaxis.set_major_formatter(FuncFormatter(_thousands))
        column[-1].set_xlabel(x_label)


def scatter(
    path: Path,
    panels: Mapping[str, Sequence[Point]],
    *,
    title: str,
    x_label: str,
    y_label: str,
    more_is_better: bool,
) -> None:
    """Draw a panel of labelled points for each heading, on logarithmic axes, with a line through those that none beats.

    ``more_is_better`` says which end of the x axis is the good one; a low y always is.
    """
    with _figure(path, title, (8.6 * len(panels), 5.6)) as figure:
        row = figure.subplots(1, len(panels), squeeze=False)[0]
        for axes, (heading, points) in zip(row, panels.items(), strict=True):
            axes.set_title(heading)
            _scatter(axes, points, more_is_better)
            axes.set_xlabel(x_label)
        row[0].set_ylabel(y_label)
        figure.draw_without_rendering()  # places the axes, which the labels are placed in
        for axes, points in zip(row, panels.values(), strict=True):
            _label(axes, points)


def _scatter(axes: Axes, points: Sequence[Point], more_is_better: bool) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    best = front(points, more_is_better)
    axes.plot([p.x for p in best], [p.y for p in best], color="#999999", linewidth=1, linestyle="--", zorder=1)
    for tool, colour in (*COLOURS.items(), ("", OTHER)):
        chosen = [p for p in points if (p.tool if p.tool in COLOURS else "") == tool]
        if chosen:
            axes.scatter([p.x for p in chosen], [p.y for p in chosen], color=colour, edgecolor="white", label=tool)
    axes.margins(0.12, 0.08)
    axes.grid()
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.6g}"))
        axis.set_minor_locator(NullLocator())
        axis.set_minor_formatter(NullFormatter())
    axes.legend(frameon=False, loc="upper left" if more_is_better else "upper right")


def front(points: Sequence[Point], more_is_better: bool) -> list[Point]:
    """Return the points that no other point beats in both x and y, from the worst x to the best."""
    kept: list[Point] = []
    for point in sorted(points, key=lambda p: (-p.x if more_is_better else p.x, p.y)):
        if not kept or point.y < kept[-1].y:
            kept.append(point)
    return kept[::-1]


def _label(axes: Axes, points: Sequence[Point]) -> None:
    """Write each label beside its point, in the first of several positions where it covers no other."""
    boxes = [_box(axes, point) for point in points]
    for point in points:
        colour = COLOURS.get(point.tool, OTHER)
        for distance in range(0, 48, 4):
            for across, down in ((1, 0), (-1, 0), (1, -1), (1, 1), (-1, -1), (-1, 1), (0, -1), (0, 1)):
                if distance and not down:
                    continue
                offset = (6 * across, (8 + distance) * down)
                note = axes.annotate(
                    point.label,
                    (point.x, point.y),
                    offset,
                    textcoords="offset points",
                    color=colour,
                    ha={1: "left", -1: "right", 0: "center"}[across],
                    va="center",
                    fontsize=8,
                )
                box = note.get_window_extent()
                inside = (
                    axes.bbox.x0 < box.x0 and box.x1 < axes.bbox.x1 and axes.bbox.y0 < box.y0 < box.y1 < axes.bbox.y1
                )
                if inside and not any(box.overlaps(other) for other in boxes):
                    boxes.append(box)
                    break
                note.remove()
            else:
                continue
            break


def _box(axes: Axes, point: Point) -> Bbox:
    x, y = axes.transData.transform((point.x, point.y))
    return Bbox.from_extents(x - 4, y - 4, x + 4, y + 4)


@contextmanager
def _figure(path: Path, title: str, size: tuple[float, float]) -> Iterator[Figure]:
    """Yield a figure of a size in inches, and write it; without the date, so that the file is reproducible."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained")
        figure.suptitle(title, fontweight="bold")
        yield figure
        figure.savefig(path, format="svg", metadata={"Date": None})


def _columns(points: Line) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


def _thousands(value: float, _: int | None = None) -> str:
    return f"{value:,g}"
