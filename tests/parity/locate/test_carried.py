"""Artifacts with a checkpoint's own codes: sound ones are faithful, and a fault is found where it is."""

import re
from pathlib import Path

import pytest
from intaglio.parity import check

from ..artifacts import QUICK
from ..audit.carried import OFFSETS, ORDERED, ORDERED_OFFSETS, ORDERED_STANDARD, ZEROS, Carried, Shelf, opened
from ..faults.artifact_editor import ArtifactEditor
from ..faults.edits import carried as edits
from ..faults.edits import weights
from ..faults.edits.attention import Edit

LAYER = "model.layers.0."
UP, DOWN, OUT = f"{LAYER}mlp.up_proj", f"{LAYER}mlp.down_proj", f"{LAYER}self_attn.o_proj"


@pytest.fixture(scope="module")
def carried_shelf(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    return Shelf(tmp_path_factory.mktemp("carried"))


@pytest.mark.parametrize(
    "base",
    [
        pytest.param(ORDERED_OFFSETS, id="order, offsets"),
        pytest.param(ORDERED, id="order", marks=pytest.mark.slow),
        pytest.param(OFFSETS, id="offsets", marks=pytest.mark.slow),
        pytest.param(ZEROS, id="zero points", marks=pytest.mark.slow),
    ],
)
def test_sound(base: Carried, carried_shelf: Shelf, tmp_path: Path) -> None:
    """With float activations, it is the source up to the rounding of float32, and is judged so."""
    pair = carried_shelf.copy(base, tmp_path / "out")
    with opened(base):
        report = check(pair.artifact, pair.checkpoint, options=QUICK, threads=1)
    assert (report.verdict, report.reasons, report.findings) == ("faithful", (), ())
    assert {limit.measure: limit.faithful for limit in report.limits}["relative_error"] == 1e-5
    assert report.carried is not None
    matrices = [tensor for tensor in report.tensors if tensor.method == "stored"]
    numbers = sum(tensor.elements for tensor in matrices)
    assert str(report.carried) == f"carried over code for code: {len(matrices)} weights, {numbers:,} numbers"


def test_standard_operators_have_no_findings(carried_shelf: Shelf, tmp_path: Path) -> None:
    """ONNX Runtime rounds the activations of a DequantizeLinear before a MatMul to 8 bits."""
    pair = carried_shelf.copy(ORDERED_STANDARD, tmp_path / "out")
    with opened(ORDERED_STANDARD):
        report = check(pair.artifact, pair.checkpoint, options=QUICK, threads=1)
    assert report.findings == ()
    assert report.carried is not None


@pytest.mark.parametrize(
    ("base", "edit", "module", "words"),
    [
        pytest.param(
            ORDERED, edits.not_gathered(DOWN), DOWN, "sorted by group .act-order., and the", id="not gathered"
        ),
        pytest.param(
            ORDERED,
            weights.rewritten(f"{OUT}.order", lambda order: order.argsort()),
            OUT,
            "gathered in the inverse order",
            id="inverse order",
        ),
        pytest.param(
            ORDERED, edits.unsorted(OUT, f"{OUT}.order"), OUT, "columns are not sorted by group", id="not sorted"
        ),
        pytest.param(OFFSETS, edits.without_offsets(DOWN), DOWN, "offsets of its blocks are left out", id="no offsets"),
        pytest.param(
            ORDERED_OFFSETS, edits.sums_of_others(DOWN), DOWN, "block sums of other activations", id="other sums"
        ),
        pytest.param(ZEROS, edits.zero_points_lowered(UP), UP, "the one was not added", id="zero points"),
    ],
)
def test_a_fault_is_located(
    base: Carried, edit: Edit, module: str, words: str, carried_shelf: Shelf, tmp_path: Path
) -> None:
    pair = carried_shelf.copy(base, tmp_path / "out")
    with ArtifactEditor(pair.artifact) as editor:
        edit(editor)
    with opened(base):
        report = check(pair.artifact, pair.checkpoint, options=QUICK, threads=1)
    assert report.verdict == "broken"
    assert [finding.module for finding in report.findings] == [module], report.findings
    assert re.search(words, report.findings[0].cause), report.findings[0].cause
