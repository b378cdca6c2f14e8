"""Checkpoints of other formats: read as their own libraries read them, and exported as they are or anew.

What a run finds is what the table of docs/inputs.md says.
"""

import importlib.util
import re
from pathlib import Path

import pytest
from intaglio.scripts.inputs import table
from intaglio.scripts.inputs.record import Record
from intaglio.tests.inputs.case import Case
from intaglio.tests.inputs.formats import cases
from intaglio.tests.inputs.outcome import run_case

CASES = cases()
FIRST = {case.format: case for case in reversed(CASES)}
"""The first case of each format: the quick ones."""

NEAR = 0.25
"""How far a loss of the table may be from that of a run, as a fraction: sums fall otherwise on another machine."""


def name_of(case: Case) -> str:
    return f"{case.format}, {case.variant}"


def marked(case: Case) -> list[pytest.MarkDecorator]:
    return [] if case is FIRST[case.format] else [pytest.mark.slow]


@pytest.mark.parametrize("case", [pytest.param(case, marks=marked(case), id=name_of(case)) for case in CASES])
def test_is_read_and_exported_as_the_page_says(case: Case, tmp_path: Path) -> None:
    if case.requires is not None and importlib.util.find_spec(case.requires) is None:
        pytest.skip(f"{case.requires} makes this checkpoint, and is not installed")
    record = Record()
    for family in table.FAMILY:
        record.outcomes[Record.key(case, family)] = run_case(case, family, tmp_path / family)
    ((key, found),) = rows(table.table(record)).items()
    shown = rows(table.written())
    assert key in shown, f"docs/inputs.md has no row for {key}; run python -m intaglio.scripts.inputs --resume --write"
    assert found[0] == shown[key][0]
    assert numbers(found[1]) == pytest.approx(numbers(shown[key][1]), rel=NEAR)


def test_the_page_has_no_other_rows() -> None:
    assert set(rows(table.written())) == {(case.format, case.variant, case.made_by) for case in CASES}


def rows(text: str) -> dict[tuple[str, str, str], list[str]]:
    """Return the cells of a table by format, variant and maker, with the reasons in the place of their numbers."""
    notes = dict(re.findall(r"^(\d+)\. (.*)$", text, re.MULTILINE))
    lines = [line.removeprefix("|").removesuffix("|") for line in text.splitlines() if line.startswith("| ")][2:]
    found = {}
    for line in lines:
        format, variant, made_by, *cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)]
        cells[0] = re.sub(r"\((\d+)\)", lambda match: f"({notes[match[1]]})", cells[0])
        found[format, variant, made_by] = cells
    return found


def numbers(cell: str) -> list[float]:
    return [float(one) for one in re.findall(r"\d+(?:\.\d+)?(?:e[+-]\d+)?", cell)]
