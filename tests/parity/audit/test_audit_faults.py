"""The audit reports each faulty weight with the cause, and no other weight."""

import re
from pathlib import Path

import pytest
from intaglio.artifact import read_manifest
from intaglio.models.checkpoint import Checkpoint
from intaglio.parity.audit import audit

from ..artifacts import Shelf
from ..faults.artifact_editor import ArtifactEditor
from .faulty_weight import FaultyWeight
from .float_faults import FLOAT_FAULTS
from .quantized_faults import QUANTIZED_FAULTS
from .rotary_faults import ROTARY_FAULTS

FAULTS = [*FLOAT_FAULTS, *QUANTIZED_FAULTS, *ROTARY_FAULTS]


@pytest.mark.parametrize("faulty", FAULTS, ids=str)
def test_a_fault_is_reported(faulty: FaultyWeight, shelf: Shelf, tmp_path: Path) -> None:
    pair = shelf.copy(faulty.base, tmp_path / "out")
    with ArtifactEditor(pair.artifact) as editor:
        faulty.edit(editor)
    errors = audit(pair.artifact, read_manifest(pair.artifact), Checkpoint(pair.checkpoint))
    reported = {error.name: error.fault for error in errors if error.fault is not None}
    assert faulty.tensor in reported, reported
    assert re.search(faulty.words, reported[faulty.tensor]), reported[faulty.tensor]
    assert set(reported) == {faulty.tensor, *faulty.others}, reported
