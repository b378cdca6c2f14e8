"""Weights in FP8 with scales, against what transformers dequantizes."""

from pathlib import Path
from typing import Any

import pytest
import torch
from intaglio.errors import CheckpointError, IntaglioError, UnsupportedError
from intaglio.models.checkpoint import Checkpoint
from intaglio.tests.inputs.case import Case
from intaglio.tests.inputs.formats import fp8 as cases
from safetensors.torch import load_file, save_file
from torch import Tensor

from .memory import check_weight

DOWN = "model.layers.0.mlp.down_proj"
QUERY = "model.layers.0.self_attn.q_proj"


@pytest.mark.parametrize("case", cases.CASES + cases.MORE, ids=lambda case: case.variant)
@pytest.mark.parametrize("family", ["qwen2", "exaone4"])
def test_values_are_those_of_transformers(case: Case, family: str, tmp_path: Path) -> None:
    source = case.make(tmp_path, family)
    expected = case.weights(source)
    checkpoint = Checkpoint(source)
    assert set(checkpoint.quantized) == set(expected)
    for name in sorted(expected)[:7]:
        check_weight(checkpoint.quantized[name], expected[name])
        assert checkpoint.quantized[name].grid is None
    assert not any("scale" in name for name in checkpoint.tensors)


def test_the_last_blocks_may_be_smaller(tmp_path: Path) -> None:
    """Blocks of 128 x 128, as FP8 checkpoints usually have them; rows and columns are not multiples of the block's."""
    block = (48, 80)
    settings = cases.FINE | {"weight_block_size": list(block)}
    source = cases.make(tmp_path, "exaone4", block=block, scale="weight_scale_inv", settings=settings)
    tensors = load_file(source / "model.safetensors")
    checkpoint = Checkpoint(source)
    for module in (DOWN, QUERY):
        weight = tensors[f"{module}.weight"]
        scales = cases.spread(tensors[f"{module}.weight_scale_inv"], weight.shape, block)
        check_weight(checkpoint.quantized[f"{module}.weight"], weight.float() * scales)


def test_exponents_as_scales(tmp_path: Path) -> None:
    settings = cases.FINE | {"scale_fmt": "ue8m0"}
    source = cases.make(tmp_path, "qwen2", block=cases.BLOCK, scale="weight_scale_inv", settings=settings)
    exponents = torch.tensor([[120, 121, 122], [123, 124, 125]], dtype=torch.uint8)
    _edit(source, {f"{DOWN}.weight_scale_inv": exponents})
    weight = load_file(source / "model.safetensors")[f"{DOWN}.weight"].float()
    expected = weight * cases.spread(2.0 ** (exponents.float() - 127), weight.shape, cases.BLOCK)
    assert torch.equal(Checkpoint(source).tensor(f"{DOWN}.weight"), expected)


def test_the_format_in_words(tmp_path: Path) -> None:
    source = cases.CASES[0].make(tmp_path, "qwen2")
    checkpoint = Checkpoint(source)
    weight = checkpoint.quantized[f"{DOWN}.weight"]
    assert weight.format == "FP8 (E4M3), blocks of 128 x 128"
    assert weight.stored_bytes == 256 * 384 + 2 * 3 * 4
    assert checkpoint.notes == (
        "the weights' FP8 is read; activations are computed in float, without the checkpoint's FP8 for them",
    )


def _edit(source: Path, tensors: dict[str, Tensor], remove: str | None = None) -> None:
    held = load_file(source / "model.safetensors") | tensors
    held = {name: one for name, one in held.items() if name != remove}
    save_file(held, source / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"weight_block_size": [128]}, CheckpointError, "weight_block_size is [128], expected two whole numbers"),
        ({"weight_block_size": [128, 0]}, CheckpointError, "weight_block_size is [128, 0], expected a whole number"),
        ({"weight_block_size": [64, 128]}, CheckpointError, "in blocks of 64 x 128 has [4, 3]"),
        ({"weight_block_size": None}, CheckpointError, "neither one scale nor one for each row of [256, 384]"),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, UnsupportedError, "quant_algo is 'NVFP4', which is not"),
    ],
)
def test_settings_are_refused(
    settings: dict[str, Any], error: type[IntaglioError], message: str, tmp_path: Path
) -> None:
    source = cases.make(tmp_path, "qwen2", block=cases.BLOCK, scale="weight_scale_inv", settings=cases.FINE | settings)
    with pytest.raises(error) as raised:
        Checkpoint(source)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("remove", "tensors", "error", "message"),
    [
        (f"{DOWN}.weight_scale_inv", {}, CheckpointError, "weight_scale_inv is missing, which FP8 needs"),
        (None, {f"{DOWN}.weight_scale": torch.ones(1)}, CheckpointError, "has two scales"),
        (None, {"lm_head.weight_scale_inv": torch.ones(3, 2)}, CheckpointError, "of a weight that is not in FP8"),
        (None, {f"{DOWN}.weight_scale_inv": torch.ones(3, 2)}, CheckpointError, "has the shape [3, 2], and a weight"),
        (None, {f"{DOWN}.weight_scale_inv": torch.ones(2, 3).int()}, CheckpointError, "has the dtype I32, and FP8"),
        (
            None,
            {"model.norm.weight": torch.ones(256).to(torch.float8_e4m3fn)},
            UnsupportedError,
            "model.norm.weight [256] is stored in FP8, which is read for matrices only",
        ),
        (
            None,
            {f"{DOWN}.weight": torch.ones(0, 384).to(torch.float8_e4m3fn)},
            CheckpointError,
            "has the shape [0, 384], not a matrix'",
        ),
    ],
)
def test_damaged_tensors_are_refused(
    remove: str | None, tensors: dict[str, Tensor], error: type[IntaglioError], message: str, tmp_path: Path
) -> None:
    source = cases.CASES[0].make(tmp_path, "qwen2")
    _edit(source, tensors, remove)
    with pytest.raises(error) as raised:
        Checkpoint(source)
    assert message in str(raised.value)


def test_settings_without_a_weight_in_fp8_are_refused(tmp_path: Path) -> None:
    source = cases.make(tmp_path, "qwen2", block=None, dtype=torch.float32, settings=cases.FINE)
    with pytest.raises(CheckpointError, match="says FP8, and no tensor has this dtype"):
        Checkpoint(source)


@pytest.mark.parametrize("number", [torch.nan, torch.inf])
def test_scales_that_are_no_numbers_are_refused(number: float, tmp_path: Path) -> None:
    source = cases.CASES[0].make(tmp_path, "qwen2")
    _edit(source, {f"{DOWN}.weight_scale_inv": torch.full((2, 3), number)})
    with pytest.raises(CheckpointError, match=r"down_proj.weight_scale_inv has scales that are NaN or infinite"):
        Checkpoint(source).tensor(f"{DOWN}.weight")
