"""Sound artifacts are not called broken: both families, all heads and precisions, many configurations and seeds."""

import pytest
from intaglio.parity import check

from .artifacts import QUICK, Base, Shelf
from .sound import FLOAT, HALF, INT4, INT8, SOUND, TASKS, name

EVERY = [base for group in (FLOAT, HALF, INT8, INT4) for base in group[:: 8 if group is FLOAT else 4]]
CASES = [pytest.param(base, id=name(base), marks=[] if base in EVERY else [pytest.mark.slow]) for base in SOUND]


@pytest.mark.parametrize("base", CASES)
def test_sound(base: Base, shelf: Shelf) -> None:
    pair = shelf.pair(base)
    report = check(pair.artifact, pair.checkpoint, options=QUICK, threads=1)
    assert report.verdict != "broken", report.reasons
    if base.precision == "fp32":
        assert report.verdict == "faithful", report.reasons
        assert report.findings == ()
    assert [(tensor.name, tensor.fault) for tensor in report.tensors if tensor.fault] == []
    assert [case.name for case in report.cases if case.refused] == [
        case.name for case in report.cases if case.name == "padded-left" and base.target == "ort"
    ]


def test_there_are_many() -> None:
    assert len(SOUND) >= 40
    assert len({name(base) for base in SOUND}) == len(SOUND)
    for precision in ("fp32", "int4"):
        assert {base.task for base in SOUND if base.precision == precision} == set(TASKS)
