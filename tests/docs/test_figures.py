"""Figures that several pages show are those of the benchmarks' tables."""

import pytest

from .pages import ROOT

Table = dict[str, dict[str, str]]


def table(page: str, column: str, *headings: str) -> Table:
    """Return the rows of the first table of a page that has these columns, by the cell in ``column``."""
    lines = (ROOT / page).read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines):
        head = cells(line)
        if line.startswith("| ") and {column, *headings} <= set(head):
            rows = []
            for row in lines[number + 2 :]:
                if not row.startswith("| "):
                    break
                rows.append(dict(zip(head, cells(row), strict=True)))
            return {row[column]: row for row in rows}
    raise AssertionError(f"{page} has no table with {column}, {', '.join(headings)}")


def cells(line: str) -> list[str]:
    return [cell.strip().strip("*") for cell in line.strip().strip("|").split("|")]


@pytest.fixture(scope="module")
def measured() -> Table:
    return table("benchmarks/quantization.md", "variant", "disk MB", "KL", "top-1")


def test_the_page_on_quantization_shows_rows_of_the_benchmark(measured: Table) -> None:
    """A new table has other cells, or other columns: copy them to the page."""
    shown = table("docs/quantization.md", "variant", "disk MB", "KL", "top-1")
    assert {"int4", "int4-rtn-b32", "llama-q4-k-m"} <= shown.keys()
    for name, row in shown.items():
        assert row == {"artifact": row["artifact"]} | {
            column: measured[name].get(column) for column in row if column != "artifact"
        }


def test_the_readme_has_the_benchmarks_figures(measured: Table) -> None:
    text = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    ratio = next(column for column in measured["int4"] if column.startswith("perplexity ratio: WikiText-2 /"))
    int4, rounding = (measured[name][ratio].partition(" /")[0] for name in ("int4", "int4-rtn-b32"))
    assert f"a KL divergence of {measured['int4']['KL']} nats per token from float32" in text
    assert f"plain rounding has {measured['int4-rtn-b32']['KL']};" in text
    assert f"on WikiText-2 its perplexity is {int4} times float32's" in text
    assert f"plain rounding's {rounding} times" in text
    assert f"int8 has {measured['int8']['KL']}, and llama.cpp's larger Q4_K_M {measured['llama-q4-k-m']['KL']}." in text


def test_the_page_on_speed_has_the_figures_of_the_race() -> None:
    row = table("benchmarks/runtime.md", "variant", "decode tok/s", "prefill 512 tok/s")["int4"]
    text = " ".join((ROOT / "docs" / "speed.md").read_text(encoding="utf-8").split())
    assert f"decodes {row['decode tok/s']} tokens/s ({row['least to most']})" in text
    assert f"prefills {row['prefill 512 tok/s']} tokens/s with 512 tokens" in text
