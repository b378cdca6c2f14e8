"""Faithful artifacts are not called broken: Qwen2 and EXAONE 4.0, all heads and precisions, many configs and seeds."""

from dataclasses import replace
from pathlib import Path

import pytest
from intaglio.parity import check

from .artifacts import QUICK, Base, Shelf
from .faithful import FAITHFUL, TASKS, case_name

SOME = FAITHFUL[::13]
CASES = [pytest.param(base, id=case_name(base), marks=[] if base in SOME else [pytest.mark.slow]) for base in FAITHFUL]


@pytest.mark.parametrize("base", CASES)
def test_faithful(base: Base, shelf: Shelf) -> None:
    pair = shelf.pair(base)
    report = check(pair.artifact, pair.checkpoint, options=QUICK, threads=1)
    assert report.verdict != "broken", report.reasons
    if base.precision == "fp32":
        assert report.verdict == "faithful", report.reasons
        assert report.findings == ()
    assert [(tensor.name, tensor.fault) for tensor in report.tensors if tensor.fault] == []
    refused = [case.name for case in report.cases if case.refused]
    padded_left = [case.name for case in report.cases if case.name == "padded-left"]
    assert refused == (padded_left if base.target == "ort" else [])


@pytest.mark.parametrize("task", ["question-answering", pytest.param("text-generation", marks=pytest.mark.slow)])
def test_a_text_of_one_word(task: str, shelf: Shelf, tmp_path: Path) -> None:
    """All positions are alike, so that only rounding, on either side, makes a difference."""
    text = tmp_path / "text.txt"
    text.write_text("a" * 2000, encoding="utf-8")
    pair = shelf.pair(Base("qwen2", task, seed=1))
    report = check(pair.artifact, pair.checkpoint, options=replace(QUICK, text=text), threads=1)
    assert (report.verdict, report.findings) == ("faithful", ()), report.reasons


def test_there_are_many_cases() -> None:
    assert len(FAITHFUL) >= 40
    assert len({case_name(base) for base in FAITHFUL}) == len(FAITHFUL)
    for precision in ("fp32", "int4"):
        assert {base.task for base in FAITHFUL if base.precision == precision} == set(TASKS)
