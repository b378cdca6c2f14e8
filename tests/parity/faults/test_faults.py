"""Each fault changes the outputs, and a check finds it: the verdict, the module and the cause."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from intaglio.artifact import read_manifest, verify
from intaglio.parity import check
from numpy.typing import NDArray

from ..artifacts import QUICK, Pair, Shelf
from .all_faults import FAULTS
from .artifact_editor import ArtifactEditor
from .fault import Fault
from .outputs import differing, outputs_by_way

CASES = [pytest.param(f, id=f.name, marks=[pytest.mark.slow] if f.slow else []) for f in FAULTS]
NOISE = 1e-5
EFFECT = 1e-3
"""The least effect of a fault: a hundred times the difference between runs of the same graph."""


def make_faulty(fault: Fault, shelf: Shelf, folder: Path) -> Pair:
    pair = shelf.copy(fault.base, folder)
    with ArtifactEditor(pair.artifact) as editor:
        fault.edit(editor)
    return pair


@cache
def correct_outputs(folder: Path) -> dict[str, NDArray[np.float32]]:
    """Return the outputs of a sound artifact, which several faults have as their base."""
    return outputs_by_way(folder)


@pytest.mark.parametrize("fault", CASES)
def test_outputs_differ(fault: Fault, shelf: Shelf, tmp_path: Path) -> None:
    """The outputs differ in the expected ways of running only, and the manifest does not show the fault."""
    folder, original = make_faulty(fault, shelf, tmp_path / "faulty").artifact, shelf.pair(fault.base).artifact
    assert verify(folder) == []
    facts, known = read_manifest(folder), read_manifest(original)
    assert (facts.source, facts.precision) == (known.source, known.precision)
    correct, faulty = correct_outputs(original), outputs_by_way(folder)
    shows = fault.shows & correct.keys()
    assert differing(correct, faulty, EFFECT) == shows
    assert differing(correct, faulty, NOISE) == shows


@pytest.mark.parametrize("fault", CASES)
def test_found(fault: Fault, shelf: Shelf, tmp_path: Path) -> None:
    pair = make_faulty(fault, shelf, tmp_path / "faulty")
    report = check(pair.artifact, pair.checkpoint, options=QUICK, threads=1)
    found = [(finding.module, finding.cause) for finding in report.findings]
    assert report.verdict == fault.verdict, (report.reasons, found)
    assert found
    assert report.findings[0].module in fault.modules, found
    assert any(fault.found_by(finding) for finding in report.findings), found


def test_the_error_of_an_epsilon_is_its_effect(shelf: Shelf, tmp_path: Path) -> None:
    """Embeddings with a mean square of 0.01 are scaled by sqrt(0.01 / (0.01 + 9e-6)): a relative error of 4.5e-4."""
    fault = next(fault for fault in FAULTS if fault.name == "epsilon 1e-5")
    pair = make_faulty(fault, shelf, tmp_path / "faulty")
    report = check(pair.artifact, pair.checkpoint, options=QUICK, threads=1)
    (finding,) = report.findings
    assert finding.verdict == "drifted"
    assert finding.error == pytest.approx(4.5e-4, rel=0.2)
    prompt = report.cases[0].figures
    assert prompt is not None
    assert 1e-4 < prompt.relative_error < 1e-2


def test_names_are_unique() -> None:
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)
