"""Each planted fault bites, and a check finds it: the verdict, the module where it sits, and the cause in words."""

from pathlib import Path

import pytest
from intaglio.artifact import read_manifest, verify
from intaglio.parity import check

from ..artifacts import QUICK, Pair, Shelf
from .all_faults import FAULTS
from .artifact_editor import ArtifactEditor
from .fault import Fault
from .outputs import answers, differing

CASES = [pytest.param(f, id=f.name, marks=[pytest.mark.slow] if f.slow else []) for f in FAULTS]
NOISE = 1e-5
BITE = 1e-3
"""A fault must show by a hundred times what runs of the same graph differ by."""


def planted(fault: Fault, shelf: Shelf, folder: Path) -> Pair:
    pair = shelf.copy(fault.base, folder)
    with ArtifactEditor(pair.artifact) as editor:
        fault.edit(editor)
    return pair


@pytest.mark.parametrize("fault", CASES)
def test_bites(fault: Fault, shelf: Shelf, tmp_path: Path) -> None:
    """In the ways of running that it should and in no other; and nothing but the numbers tells."""
    folder, sound = planted(fault, shelf, tmp_path / "planted").artifact, shelf.pair(fault.base).artifact
    assert verify(folder) == []
    facts, known = read_manifest(folder), read_manifest(sound)
    assert (facts.source, facts.precision) == (known.source, known.precision)
    right, wrong = answers(sound), answers(folder)
    shows = fault.shows & right.keys()
    assert differing(right, wrong, BITE) == shows
    assert differing(right, wrong, NOISE) == shows


@pytest.mark.parametrize("fault", CASES)
def test_found(fault: Fault, shelf: Shelf, tmp_path: Path) -> None:
    pair = planted(fault, shelf, tmp_path / "planted")
    report = check(pair.artifact, pair.checkpoint, options=QUICK, threads=1)
    told = [(finding.module, finding.cause) for finding in report.findings]
    assert report.verdict == fault.verdict, (report.reasons, told)
    assert told
    assert report.findings[0].module in fault.modules, told
    assert any(fault.found_by(finding) for finding in report.findings), told


def test_the_drift_of_an_epsilon_has_its_size(shelf: Shelf, tmp_path: Path) -> None:
    """Embeddings of a mean square of 0.01 are scaled by sqrt(0.01 / (0.01 + 9e-6)) too little: 4.5e-4 of their size."""
    fault = next(fault for fault in FAULTS if fault.name == "epsilon 1e-5")
    pair = planted(fault, shelf, tmp_path / "planted")
    report = check(pair.artifact, pair.checkpoint, options=QUICK, threads=1)
    (finding,) = report.findings
    assert finding.verdict == "drifted"
    assert finding.error == pytest.approx(4.5e-4, rel=0.2)
    prompt = report.cases[0].figures
    assert prompt is not None
    assert 1e-4 < prompt.relative_error < 1e-2


def test_names_are_told_apart() -> None:
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)
