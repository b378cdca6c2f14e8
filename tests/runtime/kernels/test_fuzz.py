"""A short run of the fuzzers; `python -m intaglio.tests.runtime.kernels.fuzz` makes long ones."""

from pathlib import Path

import numpy as np
import pytest
from intaglio.runtime import kernels

from .fuzz import judge, supervise
from .fuzz.case import Case, WrongError
from .fuzz.child import ENDS_AT
from .fuzz.judge import OPERATORS

pytestmark = pytest.mark.skipif(kernels.instructions() is None, reason="no compiled kernels for this processor")


def test_random_shapes_give_the_results_of_numpy_and_onnxruntime() -> None:
    report = supervise.fuzz("differential", cases=150, seed=20)
    assert report.findings == [], report.text()
    assert report.totals == {judge.RIGHT: 150}


def test_changed_graphs_give_the_right_result_or_a_refusal() -> None:
    report = supervise.fuzz("mutations", cases=200, seed=20)
    assert report.findings == [], report.text()
    assert report.totals[judge.RIGHT] > 20
    assert report.totals[judge.REFUSED] > 100


@pytest.mark.parametrize("name", judge.NAMES)
def test_a_result_that_is_off_is_seen(name: str, tmp_path: Path) -> None:
    """Change one number of a right result by a hundredth of the largest."""
    number = judge.NAMES.index(name)
    case = next(case for seed in range(50) if (case := judge.draw("differential", seed, number)).get(0) is not None)
    found = case.run(tmp_path, own=True)
    OPERATORS[name].check(case, found)
    assert found[0] is not None
    wrong = found[0].copy()
    wrong.flat[wrong.size // 2] += 0.01 + 0.01 * np.abs(wrong).max()
    with pytest.raises(WrongError):
        OPERATORS[name].check(case, [wrong, *found[1:]])


def test_a_crash_is_an_outcome_of_its_case(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the children end before their second case."""
    monkeypatch.setenv(ENDS_AT, "1")
    report = supervise.fuzz("differential", cases=3, seed=20)
    assert report.totals == {judge.RIGHT: 2, supervise.CRASH: 1}
    (found,) = report.findings
    assert (found.number, found.outcome) == (1, supervise.CRASH)
    assert found.case == judge.draw("differential", 20, 1).describe()


def test_a_case_is_the_same_for_the_same_seed_and_number() -> None:
    def both(mode: str) -> tuple[Case, Case]:
        return judge.draw(mode, 3, 8), judge.draw(mode, 3, 8)

    for first, second in (both("differential"), both("mutations")):
        assert first.describe() == second.describe()
    assert judge.draw("differential", 3, 8).describe() != judge.draw("differential", 4, 8).describe()
