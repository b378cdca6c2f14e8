"""Pictures are the same for the same figures, and show them."""

import xml.etree.ElementTree as ElementTree
from pathlib import Path

from intaglio.benchmarks.pages import plots
from intaglio.benchmarks.pages.plots import Point

POINTS = [Point("large", "", 100.0, 0.01), Point("small & good", "intaglio", 10.0, 0.02), Point("bad", "", 90.0, 0.03)]


def texts(path: Path) -> list[str]:
    """Return the texts of a picture, in the order of drawing."""
    return [element.text or "" for element in ElementTree.parse(path).iter("{http://www.w3.org/2000/svg}text")]


def test_a_picture_is_reproducible_and_has_no_date(tmp_path: Path) -> None:
    for name in ("a.svg", "b.svg"):
        plots.bars(tmp_path / name, "title", {"decode": POINTS})
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert b"dc:date" not in (tmp_path / "a.svg").read_bytes()


def test_bars_are_sorted_and_show_their_values(tmp_path: Path) -> None:
    plots.bars(tmp_path / "a.svg", "title", {"decode": POINTS})
    found = texts(tmp_path / "a.svg")
    assert [text for text in found if text in {point.label for point in POINTS}] == ["small & good", "bad", "large"]
    assert {"title", "decode", "100", "90", "10"} <= set(found)


def test_lines_show_their_values_on_request(tmp_path: Path) -> None:
    panels = {"decode": ([(0.0, 71.0), (10.0, 53.0)], [(10.0, 59.0)])}
    plots.lines(tmp_path / "a.svg", "title", "tokens", panels, values=True)
    plots.lines(tmp_path / "b.svg", "title", "tokens", panels, values=False)
    assert {"71", "53", "59", "tokens"} <= set(texts(tmp_path / "a.svg"))
    assert not {"71", "53", "59"} & set(texts(tmp_path / "b.svg"))


def test_a_scatter_plot_labels_every_point(tmp_path: Path) -> None:
    panels = {"prose": POINTS, "code": POINTS[:2]}
    plots.scatter(tmp_path / "a.svg", panels, title="title", x_label="x", y_label="y", more_is_better=False)
    found = texts(tmp_path / "a.svg")
    assert {"large", "small & good", "bad", "intaglio", "x", "y", "prose", "code"} <= set(found)
    assert [found.count(label) for label in ("large", "bad", "x", "y")] == [2, 1, 2, 1]


def test_the_front_has_the_points_that_no_other_beats() -> None:
    assert [point.label for point in plots.front(POINTS, more_is_better=False)] == ["large", "small & good"]
    assert [point.label for point in plots.front(POINTS, more_is_better=True)] == ["large"]
