"""A picture of a run: how its times are distributed, and what came when."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .schedule import Run

COLOUR, SECOND = "#0b6e8f", "#c2571a"
"""Of the first line of a picture, and of the second."""

STYLE: dict[Any, Any] = {  # keys are literals of matplotlib's own
    "svg.hashsalt": "intaglio",
    "svg.fonttype": "none",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "axes.axisbelow": True,
    "grid.color": "#eeeeee",
}
"""Of every picture of the project."""


def draw(path: Path, title: str, run: Run) -> None:
    """Write an SVG file: the distributions of first token, gap and end to end, and tokens and requests over time."""
    done = [sample for sample in run.samples if sample.error is None]
    times = {
        "first token": [1e3 * s.first_token for s in done if s.first_token is not None],
        "gap between tokens": [1e3 * gap for sample in done for gap in sample.gaps],
        "end to end": [1e3 * sample.end_to_end for sample in done],
    }
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 7.2), layout="constrained")
        figure.suptitle(title, fontweight="bold")
        panels = figure.subplot_mosaic([[*times], ["tokens"] * 3, ["requests"] * 3], height_ratios=[1.3, 1, 1])
        for name, values in times.items():
            _distribution(panels[name], f"{name}, ms", values)
        panels["requests"].sharex(panels["tokens"])
        _timeline(panels["tokens"], panels["requests"], run)
        figure.savefig(path, format="svg", metadata={"Date": None})


def _distribution(axes: Axes, title: str, values: Sequence[float]) -> None:
    """Draw the share of values up to each time, with the median and the 99th percentile marked."""
    axes.set_title(title)
    axes.set_ylim(0, 1.02)
    axes.grid()
    if not values:
        return
    ordered = np.sort(values)
    axes.step(ordered, np.arange(1, len(ordered) + 1) / len(ordered), where="post", color=COLOUR, linewidth=1.2)
    for percent, side in ((50, "left"), (99, "right")):
        found = float(np.percentile(ordered, percent))
        axes.plot(found, percent / 100, "o", color=SECOND, markersize=4)
        text = f"p{percent} {found:,.0f}"
        beside = (5 if side == "left" else -5, -11)
        axes.annotate(text, (found, percent / 100), beside, textcoords="offset points", color=SECOND, ha=side)
    axes.set_xlim(left=0)


def _timeline(tokens: Axes, requests: Axes, run: Run) -> None:
    """Draw the tokens of each second, and the requests that were open."""
    chunks = np.array([t - run.start for sample in run.all for t in sample.chunks])
    weights = np.array([s.output_tokens / len(s.chunks) for s in run.all for _ in s.chunks])
    last = max((sample.ended for sample in run.all), default=run.start) - run.start
    edges = np.linspace(0, max(last, 1e-3), min(max(int(last), 2), 200) + 1)
    counts, _ = np.histogram(chunks, edges, weights=weights)
    tokens.stairs(counts / np.diff(edges), edges, color=COLOUR, fill=True, alpha=0.35)
    tokens.set_title("output tokens/s")
    changes = sorted([(s.planned - run.start, 1) for s in run.all] + [(s.ended - run.start, -1) for s in run.all])
    times = [time for time, _ in changes]
    requests.step(times, np.cumsum([change for _, change in changes]), where="post", color=SECOND, linewidth=1)
    requests.set_title("requests that are due and not answered")
    requests.set_xlabel("seconds")
    for axes in (tokens, requests):
        axes.set_xlim(0, max(last, 1e-3))
        axes.set_ylim(bottom=0)
        axes.grid(axis="y")
