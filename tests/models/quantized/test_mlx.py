"""Weights of MLX: their numbers, codes, ranges of them, and damaged files."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from intaglio.errors import CheckpointError, UnsupportedError
from intaglio.files.json_file import read_object
from intaglio.models.checkpoint import Checkpoint
from intaglio.models.quantized.mlx_codes import unpack
from intaglio.tests import tiny
from safetensors.torch import save_file
from torch import Tensor

MODULE = "model.layers.0.mlp.down_proj"
NAME = f"{MODULE}.weight"
SHAPE = (64, 128)
SETTINGS = {"group_size": 32, "bits": 4}
Tensors = dict[str, Tensor]


def packed(codes: Tensor, bits: int) -> Tensor:
    """Pack codes [n, K] into int32 words [n, K * bits / 32]: each row as one long number, the first code lowest."""
    rows = []
    for row in codes.tolist():
        number = sum(code << (bits * index) for index, code in enumerate(row))
        rows.append(np.frombuffer(number.to_bytes(len(row) * bits // 8, "little"), dtype="<i4"))
    return torch.from_numpy(np.stack(rows).copy())


def made(bits: int = 4, group: int = 32) -> tuple[Tensors, Tensor, Tensor]:
    """Return the stored tensors of a weight, its codes and its numbers."""
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(0, 1 << bits, SHAPE, generator=generator)
    scales = torch.randn(SHAPE[0], SHAPE[1] // group, generator=generator).bfloat16()
    biases = torch.randn(scales.shape, generator=generator).bfloat16()
    stored = {NAME: packed(codes, bits).view(torch.uint32), f"{MODULE}.scales": scales, f"{MODULE}.biases": biases}
    wide = [part.float().repeat_interleave(group, 1) for part in (scales, biases)]
    return stored, codes, wide[0] * codes + wide[1]


def near(found: Tensor, expected: Tensor) -> bool:
    return bool((found - expected).abs().max() <= 1e-7 * expected.abs().max())


def write(folder: Path, parts: Tensors, quantization: Any = SETTINGS) -> Path:
    """Write a tiny checkpoint with one quantized weight."""
    values = tiny.config("qwen2", num_hidden_layers=1, intermediate_size=128, quantization=quantization)
    stored = {name: tensor for name, tensor in tiny.weights(values).items() if name != NAME} | parts
    tiny.write(folder, values, tensors={})
    save_file(stored, folder / "model.safetensors", {"format": "mlx"})
    return folder


@pytest.mark.parametrize("group", [32, 64, 128])
@pytest.mark.parametrize("bits", [1, 2, 3, 4, 5, 6, 8])
def test_numbers_and_codes(bits: int, group: int, tmp_path: Path) -> None:
    parts, codes, expected = made(bits, group)
    checkpoint = Checkpoint(write(tmp_path, parts, {"group_size": group, "bits": bits}))
    found = checkpoint.tensor(NAME)
    assert near(found, expected)
    read = checkpoint.quantized[NAME]
    assert read.format == f"MLX, {bits} bits, groups of {group}"
    assert read.stored_bytes == sum(tensor.nbytes for tensor in parts.values())
    assert torch.equal(read.values(range(5, 9), range(7, 100)), found[5:9, 7:100])
    assert torch.equal(checkpoint.columns(NAME, 31, 33), found[:, 31:33])
    grid = read.grid
    assert grid is not None
    assert (grid.bits, grid.block_size, grid.order) == (max(2, bits), group, None)
    assert torch.equal(grid.codes(range(3, 60)).long(), codes[3:60])
    assert grid.codes(range(3, 3)).shape == (0, 128)
    blocks = grid.parameters()
    assert blocks.offsets is not None
    wide = [part.repeat_interleave(group, 1) for part in (blocks.scales, blocks.zero_points, blocks.offsets)]
    assert torch.equal(wide[0] * (grid.codes(range(64)).float() - wide[1]) + wide[2], found)


def test_biases_that_are_multiples_become_zero_points(tmp_path: Path) -> None:
    """As far as codes go: the biases here are -3, -16 and 1 scales, and a scale of 0 has no multiples."""
    parts, _, _ = made()
    scales, biases = (parts[f"{MODULE}.{part}"] for part in ("scales", "biases"))
    scales[:] = -0.5
    biases[:, 0], biases[:, 1], biases[:, 2] = 1.5, 8.0, -0.5
    scales[:, 3] = 0.0
    grid = Checkpoint(write(tmp_path, parts)).quantized[NAME].grid
    assert grid is not None
    blocks = grid.parameters()
    assert blocks.offsets is not None
    assert blocks.zero_points[0].tolist() == [3, 15, 0, 0]
    assert blocks.offsets[0].tolist() == [0.0, 0.5, -0.5, float(biases[0, 3])]


@pytest.mark.parametrize("group", [32, 64, 128])
@pytest.mark.parametrize("bits", [1, 2, 3, 4, 5, 6, 8])
def test_codes_as_mlx_packs_them(bits: int, group: int) -> None:
    mx = pytest.importorskip("mlx.core")
    weight = mx.random.normal(SHAPE)
    packed, scales, biases = mx.quantize(weight, group, bits)
    codes = unpack(torch.from_numpy(np.array(packed).view(np.int32)), bits).float()
    wide = [torch.from_numpy(np.array(part)).repeat_interleave(group, 1) for part in (scales, biases)]
    expected = torch.from_numpy(np.array(mx.dequantize(packed, scales, biases, group, bits)))
    assert (wide[0] * codes + wide[1] - expected).abs().max() <= 1e-6


@pytest.mark.parametrize(("mode", "bits"), [("mxfp4", 4), ("nvfp4", 4), ("mxfp8", 8)])
def test_small_floats(mode: str, bits: int, tmp_path: Path) -> None:
    mx = pytest.importorskip("mlx.core")
    packed, scales = mx.quantize(mx.random.normal(SHAPE), mode=mode)
    expected = torch.from_numpy(np.array(mx.dequantize(packed, scales, mode=mode, dtype=mx.float32)))
    words = torch.from_numpy(np.array(packed).view(np.int32)).view(torch.uint32)
    parts = {NAME: words, f"{MODULE}.scales": torch.from_numpy(np.array(scales))}
    read = Checkpoint(write(tmp_path, parts, {"mode": mode, "bits": bits})).quantized[NAME]
    assert torch.equal(read.values(range(64), range(128)), expected)
    assert torch.equal(read.values(range(5, 9), range(7, 100)), expected[5:9, 7:100])
    assert read.format == f"MLX, {mode.upper()}, groups of {16 if mode == 'nvfp4' else 32}"
    grid = read.grid
    assert (grid is None) == (mode == "mxfp8")
    if grid is not None:
        blocks = grid.parameters()
        wide = [part.repeat_interleave(grid.block_size, 1) for part in (blocks.scales, blocks.zero_points)]
        assert torch.equal(wide[0] * (grid.codes(range(64)).float() - wide[1]), expected)
        assert int(grid.codes(range(64)).max()) < 1 << grid.bits


def test_a_float_that_is_nan(tmp_path: Path) -> None:
    parts = {NAME: torch.full((64, 32), -1, dtype=torch.int32).view(torch.uint32)}
    parts[f"{MODULE}.scales"] = torch.full((64, 4), 127, dtype=torch.uint8)
    read = Checkpoint(write(tmp_path, parts, {"mode": "mxfp8"})).quantized[NAME]
    with pytest.raises(CheckpointError, match=r"down_proj.weight has weights that are NaN; fetch the checkpoint"):
        read.values(range(1), range(1))


def test_one_module_may_have_its_own_settings(tmp_path: Path) -> None:
    parts, _, expected = made(bits=6, group=64)
    quantization = SETTINGS | {MODULE: {"bits": 6, "group_size": 64}, "lm_head": False}
    assert near(Checkpoint(write(tmp_path, parts, quantization)).tensor(NAME), expected)


def test_defaults_are_those_of_mlx(tmp_path: Path) -> None:
    parts, _, expected = made(bits=4, group=64)
    assert near(Checkpoint(write(tmp_path, parts, SETTINGS | {MODULE: {}})).tensor(NAME), expected)


def test_settings_of_a_published_checkpoint(tmp_path: Path) -> None:
    published = read_object(Path(__file__).parents[1] / "published/quantized.json")
    parts, _, expected = made(bits=4, group=64)
    settings = published["Qwen2.5-7B-Instruct-4bit of MLX"]["quantization"]
    assert near(Checkpoint(write(tmp_path, parts, settings)).tensor(NAME), expected)


def without(part: str) -> Callable[[Tensors], None]:
    def changed(parts: Tensors) -> None:
        del parts[f"{MODULE}.{part}"]

    return changed


def changed(part: str, change: Callable[[Tensor], Tensor]) -> Callable[[Tensors], None]:
    name = f"{MODULE}.{part}"
    return lambda parts: parts.update({name: change(parts[name])})


DAMAGES: dict[str, tuple[Callable[[Tensors], None], str]] = {
    "no scales": (without("scales"), r"quantization is set, and no tensor NAME.scales is stored"),
    "no biases": (without("biases"), r"tensor model.layers.0.mlp.down_proj.biases is missing; fetch the"),
    "no codes": (without("weight"), r"down_proj.weight is missing"),
    "fewer biases": (changed("biases", lambda one: one[:, 1:]), r"biases has shape \[64, 3\], expected \[64, 4\]"),
    "fewer codes": (changed("weight", lambda one: one[:, 1:]), r"weight has shape \[64, 15\], expected \[64, 16\]"),
    "fewer rows": (changed("weight", lambda one: one[1:]), r"weight has shape \[63, 16\], expected \[64, 16\]"),
    "scales of uint8": (changed("scales", lambda one: one.to(torch.uint8)), r"scales is U8, expected F16 or BF16"),
    "codes as int32": (changed("weight", lambda one: one.view(torch.int32)), r"weight is I32, expected U32"),
    "no columns": (changed("scales", lambda one: one[:, :0]), r"scales has shape \[64, 0\], expected \[\*, \*\]"),
    "a vector": (changed("scales", lambda one: one[0]), r"scales has shape \[4\], expected"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_weights(damage: str, tmp_path: Path) -> None:
    change, message = DAMAGES[damage]
    parts, _, _ = made()
    change(parts)
    parts = {name: tensor.contiguous() for name, tensor in parts.items()}
    with pytest.raises(CheckpointError, match=message):
        Checkpoint(write(tmp_path, parts))


@pytest.mark.parametrize("part", ["scales", "biases"])
def test_scales_that_are_not_numbers(part: str, tmp_path: Path) -> None:
    parts, _, _ = made()
    parts[f"{MODULE}.{part}"][63, 3] = float("nan")
    read = Checkpoint(write(tmp_path, parts)).quantized[NAME]
    assert read.grid is not None
    with pytest.raises(CheckpointError, match=rf"down_proj.{part} has scales that are NaN or infinite; fetch"):
        read.grid.parameters()
    with pytest.raises(CheckpointError, match=rf"down_proj.{part} has scales that are NaN or infinite; fetch"):
        read.values(range(64), range(1))


WRONG_SETTINGS: dict[str, tuple[Any, type[Exception], str]] = {
    "no object": ([4], CheckpointError, r"quantization is \[4\], expected an object"),
    "7 bits": (SETTINGS | {"bits": 7}, CheckpointError, r"bits is 7, expected one of 1, 2, 3, 4, 5, 6, 8"),
    "bits as a text": (SETTINGS | {"bits": "4"}, CheckpointError, r"bits is '4', expected a whole number"),
    "groups of 0": (SETTINGS | {"group_size": 0}, CheckpointError, r"group_size is 0, expected one of 32, 64, 128"),
    "other groups": (
        SETTINGS | {"group_size": 64},
        CheckpointError,
        r"weight has shape \[64, 16\], expected \[64, 32\]",
    ),
    "another mode": (
        SETTINGS | {"mode": "fp2"},
        UnsupportedError,
        r"mode 'fp2' of model.layers.0.mlp.down_proj is not read \(those that are: affine, mxfp4, nvfp4, mxfp8\)",
    ),
    "mxfp4": (SETTINGS | {"mode": "mxfp4"}, CheckpointError, r"down_proj.scales is BF16, expected U8"),
    "mxfp4 in 8 bits": (SETTINGS | {"mode": "mxfp4", "bits": 8}, CheckpointError, r"bits is 8, expected one of 4"),
    "unknown": (SETTINGS | {"rotation": 8}, UnsupportedError, r"has 'rotation', a setting of MLX that is not known"),
    "unknown in one": (SETTINGS | {MODULE: {"sparse": 1}}, UnsupportedError, r"down_proj has 'sparse', a setting"),
    "a module not there": (
        SETTINGS | {"model.layers.9.mlp.down_proj": SETTINGS},
        CheckpointError,
        r"the module model.layers.9.mlp.down_proj is to be quantized, and has no scales",
    ),
    "a quantized one as float": (
        SETTINGS | {MODULE: False},
        CheckpointError,
        r"the module model.layers.0.mlp.down_proj is not to be quantized, and has scales",
    ),
}


@pytest.mark.parametrize("wrong", WRONG_SETTINGS)
def test_wrong_settings(wrong: str, tmp_path: Path) -> None:
    quantization, error, message = WRONG_SETTINGS[wrong]
    with pytest.raises(error, match=message):
        Checkpoint(write(tmp_path, made()[0], quantization))


def test_codes_of_another_weight_are_not_left_over(tmp_path: Path) -> None:
    parts, _, _ = made()
    parts["lm_head.weight"] = parts[NAME].clone()
    with pytest.raises(CheckpointError, match=r"tensor lm_head.weight \(U32\) belongs to no quantized weight"):
        Checkpoint(write(tmp_path, parts))


def test_mlx_lm_repeats_the_settings(tmp_path: Path) -> None:
    parts, _, expected = made()
    folder = write(tmp_path, parts)
    config = read_object(folder / "config.json")
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": config["quantization"]}))
    assert near(Checkpoint(folder).tensor(NAME), expected)
