"""A check finds every planted fault: the verdict, the module where it sits, and the cause in words.

That each plant makes the difference it is meant to make is ``test_planted.py``'s concern.
"""

from pathlib import Path

import pytest
from intaglio.parity import check

from .artifacts import QUICK, Shelf
from .fault import Fault
from .faults import FAULTS
from .surgery import Surgery

CASES = [pytest.param(f, id=f.name, marks=[pytest.mark.slow] if f.slow else []) for f in FAULTS]


@pytest.mark.parametrize("fault", CASES)
def test_found(fault: Fault, shelf: Shelf, tmp_path: Path) -> None:
    pair = shelf.copy(fault.base, tmp_path / "planted")
    with Surgery(pair.artifact) as surgery:
        fault.plant(surgery)
    report = check(pair.artifact, pair.checkpoint, options=QUICK, threads=1)
    told = [(finding.module, finding.cause) for finding in report.findings]
    assert report.verdict == fault.verdict, (report.reasons, told)
    assert told
    assert report.findings[0].module in fault.modules, told
    assert any(fault.found_by(finding) for finding in report.findings), told
