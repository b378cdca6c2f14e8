"""Weights of TorchAO in safetensors, against what TorchAO dequantizes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from intaglio.errors import CheckpointError, IntaglioError, UnsupportedError
from intaglio.models.checkpoint import Checkpoint
from intaglio.tests.inputs.case import Case
from intaglio.tests.inputs.formats import torchao as cases
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from .memory import check_weight

MODULE = "model.layers.0.mlp.down_proj"
NAME = f"{MODULE}.weight"
QDATA, SCALE, ZERO = (f"{MODULE}._weight_{part}" for part in ("qdata", "scale", "zero_point"))


@pytest.mark.parametrize("case", cases.CASES + cases.MORE, ids=lambda case: case.variant)
@pytest.mark.parametrize("family", cases.FAMILIES)
def test_values_and_codes_are_torchaos(case: Case, family: str, tmp_path: Path) -> None:
    source = case.make(tmp_path, family)
    expected = case.weights(source)
    checkpoint = Checkpoint(source)
    assert set(checkpoint.quantized) == set(expected)
    for name, weight in expected.items():
        check_weight(checkpoint.quantized[name], weight)
    assert not any("_weight_" in name for name in checkpoint.tensors)
    assert checkpoint.notes == ()


def test_the_digests_are_torchaos(tmp_path: Path) -> None:
    """Where torchao is installed, it makes the tensors again from the fixture's files."""
    pytest.importorskip("torchao")
    from torchao.prototype.safetensors.safetensors_support import unflatten_tensor_state_dict  # pyright: ignore[reportMissingImports]

    source = cases.make(tmp_path, "qwen2", "int8")
    with safe_open(source / "model.safetensors", "pt") as file:
        metadata = file.metadata()
    theirs, _ = unflatten_tensor_state_dict(load_file(source / "model.safetensors"), metadata)
    assert torch.equal(theirs[NAME].dequantize(output_dtype=torch.float32), Checkpoint(source).tensor(NAME))


def _edit(
    source: Path,
    tensors: dict[str, Tensor | None] | None = None,
    attributes: dict[str, Any] | None = None,
    entry: str | None = None,
    kind: str | None = None,
) -> None:
    """Change a weight's tensors (None removes one), its attributes, or the whole text of its metadata."""
    path = source / "model.safetensors"
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    held = load_file(path)
    described = json.loads(metadata[NAME])
    described["_data"] |= attributes or {}
    described["_type"] = kind or described["_type"]
    metadata[NAME] = json.dumps(described) if entry is None else entry
    changed = {name: one for name, one in (held | (tensors or {})).items() if one is not None}
    save_file(changed, path, metadata)


def test_a_note_says_that_activations_are_quantized(tmp_path: Path) -> None:
    source = cases.make(tmp_path, "qwen2", "int8")
    scale = f"{MODULE}._weight_act_quant_scale"
    _edit(source, {scale: torch.ones(1)}, {"act_quant_kwargs": {"_type": "QuantizeTensorToInt8Kwargs", "_data": {}}})
    checkpoint = Checkpoint(source)
    assert checkpoint.notes == (
        "TorchAO quantizes activations too where this checkpoint runs; they are computed in float",
    )
    assert scale not in checkpoint.tensors


Change = Callable[[Path], None]


def _change(**changes: Any) -> Change:
    return lambda source: _edit(source, **changes)


@pytest.mark.parametrize(
    ("variant", "change", "error", "message"),
    [
        ("int8", _change(kind="Int4TilePackedTo4dTensor"), UnsupportedError, "'Int4TilePackedTo4dTensor' is not read"),
        ("int8", _change(kind="MXTensor"), UnsupportedError, "TorchAO's 'MXTensor' is not read (Int8Tensor, "),
        (
            "int8",
            _change(tensors={f"{MODULE}._weight_act_pre_scale": torch.ones(96)}),
            UnsupportedError,
            "act_pre_scale multiplies the activations",
        ),
        (
            "int8",
            _change(tensors={QDATA: None}),
            CheckpointError,
            "_weight_qdata is missing, which TorchAO's Int8Tensor",
        ),
        ("int8", _change(tensors={SCALE: None}), CheckpointError, "_weight_scale is missing"),
        ("int8", _change(tensors={SCALE: torch.ones(64, 2)}), CheckpointError, "has the shape [64, 2], and a weight"),
        ("int8", _change(tensors={QDATA: torch.ones(64, 96)}), CheckpointError, "has the dtype F32, and TorchAO's"),
        ("int8", _change(attributes={"block_size": [1, 97]}), CheckpointError, "expected two numbers that divide [64,"),
        ("int8", _change(attributes={"block_size": [1, 0]}), CheckpointError, "expected a whole number from 1 to"),
        (
            "int8",
            _change(attributes={"block_size": [96]}),
            CheckpointError,
            "expected two numbers that divide [64, 96]",
        ),
        ("int8", _change(attributes={"block_size": 1 << 70}), CheckpointError, "expected a whole number from 1 to"),
        ("int4", _change(attributes={"target_dtype": {"_data": "int9"}}), CheckpointError, "expected one of int1 to"),
        ("int4", _change(attributes={"target_dtype": "int4"}), CheckpointError, "expected an object"),
        ("int8", _change(entry="{"), CheckpointError, "the metadata of 'model.layers.0.mlp.down_proj.weight' is not a"),
        ("int8", _change(entry="[]"), CheckpointError, "is not a JSON object"),
        ("int8", _change(entry="[" * 100_000), CheckpointError, "is not a JSON object"),
        ("int8", _change(entry='{"_type": "Tensor"}'), CheckpointError, "which the file's metadata does not describe"),
    ],
)
def test_what_cannot_be_read_is_refused(
    variant: str, change: Change, error: type[IntaglioError], message: str, tmp_path: Path
) -> None:
    source = cases.make(tmp_path, "qwen2", variant)
    change(source)
    with pytest.raises(error) as raised:
        Checkpoint(source)
    assert message in str(raised.value)
    assert "model.safetensors" in str(raised.value)


def test_numbers_beyond_their_bits_are_refused(tmp_path: Path) -> None:
    source = cases.make(tmp_path, "qwen2", "int4")
    _edit(source, {QDATA: torch.full((64, 96), 8, dtype=torch.int8)})
    with pytest.raises(CheckpointError, match=r"_weight_qdata has numbers of more than 4 bits"):
        Checkpoint(source).tensor(NAME)


def test_zero_points_that_are_not_whole_are_refused(tmp_path: Path) -> None:
    source = cases.make(tmp_path, "qwen2", "int4")
    _edit(source, {ZERO: torch.full((64, 3), 0.5)})
    with pytest.raises(CheckpointError, match=r"_weight_zero_point has zero points that are not codes of 4 bits"):
        Checkpoint(source).tensor(NAME)


def test_a_folder_without_quantized_tensors_is_refused(tmp_path: Path) -> None:
    source = cases.make_int4(tmp_path, "qwen2")
    held = load_file(source / "model.safetensors")
    weights = {name: one for name, one in held.items() if "_weight_" not in name}
    save_file(weights, source / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"says torchao, and the metadata of .* names none of its tensors"):
        Checkpoint(source)


def test_a_pickle_has_its_own_advice(tmp_path: Path) -> None:
    source = cases.make_int4(tmp_path, "qwen2")
    (source / "model.safetensors").rename(source / "pytorch_model.bin")
    message = "export the checkpoint that it was made from, or quantize that again with a torchao and transformers"
    with pytest.raises(UnsupportedError, match=message):
        Checkpoint(source)
