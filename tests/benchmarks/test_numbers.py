"""Medians and ratios over rounds."""

from intaglio.benchmarks.harness.records import Record
from intaglio.benchmarks.pages.numbers import markdown, middle, ratio, spread, value

FAST: list[Record] = [
    {"round": 0, "decode": 40.0, "first": {"512": 1.0}},
    {"round": 1, "decode": 60.0},
    {"round": 3, "decode": 90.0},
]
SLOW: list[Record] = [{"round": 0, "decode": 20.0}, {"round": 1, "decode": 40.0}, {"round": 2, "decode": 1.0}]


def test_a_figure_is_found_by_its_path() -> None:
    assert value(FAST[0], "first.512") == 1.0
    assert value(FAST[1], "first.512") is None
    assert value(FAST[0], "decode.512") is None


def test_medians_and_extremes_leave_out_rounds_without_the_figure() -> None:
    assert middle(FAST, "decode") == 60.0
    assert middle(FAST, "first.512") == 1.0
    assert middle([], "decode") is None
    assert spread(FAST, "decode") == (40.0, 90.0)
    assert spread(FAST, "nothing") is None


def test_ratios_are_taken_within_rounds_that_both_have() -> None:
    assert ratio(FAST, SLOW, "decode") == 1.75  # 2 in round 0, 1.5 in round 1; the other rounds are not in both
    assert ratio(FAST, [{"round": 0, "gbs": 10.0}], "decode", "gbs") == 4.0
    assert ratio(FAST, [{"round": 9, "decode": 1.0}], "decode") is None
    assert ratio(FAST, [{"round": 0, "decode": 0.0}], "decode") is None


def test_a_table_is_markdown() -> None:
    assert markdown(["row", "a"], [["x", "1"]]) == "| row | a |\n| --- | ---: |\n| x | 1 |"
