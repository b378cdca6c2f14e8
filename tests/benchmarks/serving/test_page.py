"""The generated part of serving.md, from records."""

from pathlib import Path
from typing import Any

import pytest
from intaglio.benchmarks.harness.records import Key, Records
from intaglio.benchmarks.harness.serving.cells import CLIENTS, KINDS, LONG, cells
from intaglio.benchmarks.harness.serving.race import SECTION
from intaglio.benchmarks.harness.serving.servers import INTAGLIO, LLAMA
from intaglio.benchmarks.pages import serving_page


def figures(speed: float) -> dict[str, Any]:
    times = {"mean": 0.1, "p50": 0.1, "p90": 0.2, "p99": 0.3, "max": 0.4}
    return {
        "output_tokens_per_second": speed,
        "total_tokens_per_second": 3 * speed,
        "first_token_seconds": times,
        "token_gap_seconds": {name: value / 10 for name, value in times.items()},
    }


LONG_FIGURES = {
    "before": {"p50": 0.01},
    "during": {"p99": 0.02, "max": 0.025},
    "p99_ratio": 2.0,
    "max_ratio": 2.5,
    "long_first_token": 12.0,
}


@pytest.fixture
def records(tmp_path: Path) -> Records:
    """Two rounds: intaglio twice and then three times as fast as llama.cpp, at every number of clients."""
    found = Records(tmp_path / "records.jsonl")
    for number in range(2):
        for name, speed in ((INTAGLIO, 20.0 + 10 * number), (LLAMA, 10.0)):
            for clients in CLIENTS:
                for kind in ("clients", "prefix"):
                    found.add(Key(SECTION, name, f"{kind}-{clients}", number), figures(speed * clients))
            found.add(Key(SECTION, name, "open", number), figures(speed))
            found.add(Key(SECTION, name, "long", number), LONG_FIGURES)
    return found


def rows(table: str, name: str) -> list[list[str]]:
    """Return the cells of the rows that have a name among their first two columns."""
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    return [cells for cells in lines if name in cells[:2]]


def test_throughput_is_a_median_and_the_ratio_is_of_each_round(records: Records) -> None:
    own, peer = rows(serving_page.loads(records, ["clients-4"]), "4 clients")
    assert own == ["4 clients", "intaglio", "100.0", "2.50", "300", "100.0", "300.0", "10.0", "30.0"]
    assert peer == ["4 clients", "llama.cpp", "40.0", "", "120", "100.0", "300.0", "10.0", "30.0"]


def test_the_long_prompt_is_told_by_the_gaps_of_the_others(records: Records) -> None:
    [own] = rows(serving_page.long_table(records), "intaglio")
    assert own == ["intaglio", "10.0", "20.0", "25.0", "2.0", "2.5", "12.0"]


def test_the_page_has_every_table_and_both_plots(records: Records, tmp_path: Path) -> None:
    text = serving_page.body(records, ["intaglio: int4", "llama.cpp: q4"], 2)
    assert text.count("### ") == 4
    assert "2 rounds: medians over them" in text
    serving_page.write(tmp_path, text, records)
    page = (tmp_path / "serving.md").read_text(encoding="utf-8")
    for plot in (serving_page.PLOT, serving_page.PREFIX_PLOT):
        assert f"({plot})" in page
        assert "<svg" in (tmp_path / plot).read_text(encoding="utf-8")


def test_what_was_not_measured_is_left_out(tmp_path: Path) -> None:
    found = Records(tmp_path / "records.jsonl")
    found.add(Key(SECTION, LLAMA, "clients-1", 0), figures(5.0))
    text = serving_page.body(found, [], 2)
    assert text.count("### ") == 1
    assert rows(text, "1 client") == [["1 client", "llama.cpp", "5.0", "", "15", "100.0", "300.0", "10.0", "30.0"]]


def test_a_quick_round_has_fewer_cells_of_every_kind() -> None:
    whole, quick = ([*cells(8.0, 1.0, quick=quick), LONG] for quick in (False, True))
    assert {cell.kind for cell in whole} == {cell.kind for cell in quick} == set(KINDS)
    assert len(quick) < len(whole)
    assert len({cell.name for cell in whole}) == len(whole)
