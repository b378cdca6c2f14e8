"""Faults of weights of 5 bits: of one of their parts, and of the function that joins them."""

from collections.abc import Callable
from pathlib import Path

import onnx_ir as ir
import pytest
from intaglio.artifact import read_manifest
from intaglio.contract import JOIN_BITS
from intaglio.models.checkpoint import Checkpoint
from intaglio.parity.audit import audit

from ..artifacts import Base, Shelf
from ..faults.artifact_editor import ArtifactEditor

BASE = Base("qwen2", precision="int4", options={"bits": (4, 5), "windows": 2})


def weights(folder: Path) -> list[str]:
    """Return the codes of 5 bits."""
    tensors = read_manifest(folder).tensors.items()
    return [name for name, entry in tensors if entry.quantization is not None and entry.quantization.bits == 5]


def faults(folder: Path, checkpoint: Path) -> dict[str, str]:
    errors = audit(folder, read_manifest(folder), Checkpoint(checkpoint))
    return {error.name: error.fault for error in errors if error.fault is not None}


def test_sound_weights_have_the_recorded_errors(shelf: Shelf) -> None:
    pair = shelf.pair(BASE)
    assert len(weights(pair.artifact)) > 1
    assert faults(pair.artifact, pair.checkpoint) == {}


@pytest.mark.parametrize("part", ["codes", "low_bits"])
def test_a_part_of_another_weight(part: str, shelf: Shelf, tmp_path: Path) -> None:
    pair = shelf.copy(BASE, tmp_path / "out")
    name = weights(pair.artifact)[0]
    with ArtifactEditor(pair.artifact) as editor:
        editor.array(f"{name.removesuffix('codes')}{part}")[:] ^= 0x55
    found = faults(pair.artifact, pair.checkpoint)
    assert set(found) == {name}
    assert "relative error" in found[name]


def shifted(function: ir.Function) -> None:
    """Let the lowest bit become bit 2 of a code instead of bit 3."""
    node = next(node for node in function if node.outputs[0].name == "three")
    node.attributes["value"] = ir.AttrTensor("value", ir.tensor(2, dtype=ir.DataType.UINT8))


def without_low_bits(function: ir.Function) -> None:
    node = next(node for node in function if node.op_type == "BitwiseOr")
    node.replace_input_with(1, node.inputs[0])


def failing(function: ir.Function) -> None:
    node = next(node for node in function if node.op_type == "BitwiseOr")
    node.op_type = "Gather"


@pytest.mark.parametrize("edit", [shifted, without_low_bits, failing])
def test_a_function_that_joins_otherwise(edit: Callable[[ir.Function], None], shelf: Shelf, tmp_path: Path) -> None:
    pair = shelf.copy(BASE, tmp_path / "out")
    names = weights(pair.artifact)
    with ArtifactEditor(pair.artifact) as editor:
        edit(editor.model.functions[(*JOIN_BITS, "")])
    found = faults(pair.artifact, pair.checkpoint)
    assert set(found) == set(names)
    for fault in found.values():
        assert fault.endswith("the function intaglio::JoinBits of the graph does not join the bits of codes")


def test_parts_that_do_not_fit(shelf: Shelf, tmp_path: Path) -> None:
    pair = shelf.copy(BASE, tmp_path / "out")
    names = weights(pair.artifact)
    with ArtifactEditor(pair.artifact) as editor:
        node = editor.nodes(JOIN_BITS[1])[0]
        assert node.inputs[0] is not None
        name = node.inputs[0].name
        node.replace_input_with(1, node.inputs[0])
    found = faults(pair.artifact, pair.checkpoint)
    assert name in names
    assert set(found) == {name}
    assert "which do not fit" in found[name]
