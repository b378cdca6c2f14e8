"""Weights of bitsandbytes: their numbers, ranges of them, and damaged files."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from intaglio.errors import CheckpointError, UnsupportedError
from intaglio.files.json_file import read_object
from intaglio.models.checkpoint import Checkpoint
from intaglio.tests import tiny
from torch import Tensor

functional = pytest.importorskip("bitsandbytes.functional")

SETTINGS = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
NAME = "model.layers.0.mlp.down_proj.weight"
STATE = f"{NAME}.quant_state.bitsandbytes__nf4"
SHAPE = (64, 96)
Tensors = dict[str, Tensor]


def quantized(weight: Tensor, **form: Any) -> tuple[Tensors, Tensor]:
    """Return the tensors that bitsandbytes saves of a weight, and the numbers that they stand for."""
    packed, state = functional.quantize_4bit(weight, **form)
    stored = {f"{NAME}.{key}": tensor for key, tensor in state.as_dict(packed=True).items()}
    shape, state.shape = state.shape, torch.Size([weight.numel()])  # tests/inputs/formats/bitsandbytes.py says why
    return {NAME: packed, **stored}, functional.dequantize_4bit(packed, state).view(shape)


def write(folder: Path, parts: Tensors, settings: dict[str, Any] | None = None) -> Path:
    """Write a tiny checkpoint with one quantized weight; a None in the place of a tensor leaves it out."""
    values = tiny.config("qwen2", num_hidden_layers=1, quantization_config=SETTINGS if settings is None else settings)
    stored = {name: tensor for name, tensor in tiny.weights(values).items() if name != NAME} | parts
    tiny.write(folder, values, tensors={})
    from safetensors.torch import save_file

    save_file(stored, folder / "model.safetensors")
    return folder


def weight(shape: tuple[int, int] = SHAPE) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.quick_one_in(2)
@pytest.mark.parametrize("block_size", [64, 128, 256, 512, 1024, 2048, 4096])
@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("quant_type", ["nf4", "fp4"])
def test_four_bits(quant_type: str, double: bool, block_size: int, tmp_path: Path) -> None:
    form = {"quant_type": quant_type, "blocksize": block_size, "compress_statistics": double}
    parts, expected = quantized(weight(), **form)
    checkpoint = Checkpoint(write(tmp_path, parts, SETTINGS | {"bnb_4bit_quant_type": quant_type}))
    assert torch.equal(checkpoint.tensor(NAME), expected)
    read = checkpoint.quantized[NAME]
    assert read.grid is None
    assert read.stored_bytes == sum(tensor.nbytes for tensor in parts.values())
    doubly = ", double quantization" if double else ""
    assert read.format == f"bitsandbytes {quant_type.upper()}, blocks of {block_size}{doubly}"
    assert [name for name in checkpoint.tensors if name.startswith(NAME)] == [NAME]


@pytest.mark.parametrize("storage", [torch.uint8, torch.bfloat16, torch.float16, torch.float32])
def test_dtypes_of_the_storage(storage: torch.dtype, tmp_path: Path) -> None:
    parts, expected = quantized(weight(), quant_type="nf4", quant_storage=storage)
    assert parts[NAME].dtype == storage
    assert torch.equal(Checkpoint(write(tmp_path, parts)).tensor(NAME), expected)


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("storage", [torch.uint8, torch.float32])
def test_ranges_are_slices_of_the_whole(storage: torch.dtype, double: bool, tmp_path: Path) -> None:
    """Of a matrix with an odd width, whose rows begin within bytes and blocks."""
    parts, expected = quantized(weight((64, 97)), quant_type="nf4", quant_storage=storage, compress_statistics=double)
    read = Checkpoint(write(tmp_path, parts)).quantized[NAME]
    assert read.info.shape == (64, 97)
    for rows in (range(64), range(1), range(5, 6), range(7, 40), range(63, 64), range(3, 3)):
        for columns in (range(97), range(1), range(13, 90), range(96, 97)):
            found = read.values(rows, columns)
            assert torch.equal(found, expected[rows.start : rows.stop, columns.start : columns.stop])


def test_many_chunks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("intaglio.models.quantized.bitsandbytes_4bit.CHUNK", 5 * 96)
    parts, expected = quantized(weight(), quant_type="nf4", compress_statistics=True)
    assert torch.equal(Checkpoint(write(tmp_path, parts)).tensor(NAME), expected)


EIGHT = {"quant_method": "bitsandbytes", "load_in_8bit": True, "llm_int8_threshold": 6.0}
MODULE = NAME.removesuffix(".weight")


def int8(layout: int = 0) -> tuple[Tensors, Tensor]:
    codes, scales, _ = functional.int8_vectorwise_quant(weight().half())
    parts = {NAME: codes, f"{MODULE}.SCB": scales, f"{MODULE}.weight_format": torch.tensor(layout, dtype=torch.uint8)}
    return parts, functional.int8_vectorwise_dequant(codes, scales)


def test_eight_bits(tmp_path: Path) -> None:
    parts, expected = int8()
    checkpoint = Checkpoint(write(tmp_path, parts, EIGHT))
    read = checkpoint.quantized[NAME]
    assert (read.values(range(64), range(96)) - expected).abs().max() <= 1e-7 * expected.abs().max()
    assert torch.equal(read.values(range(5, 9), range(7, 50)), checkpoint.tensor(NAME)[5:9, 7:50])
    grid = read.grid
    assert grid is not None
    assert (grid.bits, grid.block_size, grid.order) == (8, 96, None)
    blocks = grid.parameters()
    assert blocks.offsets is None
    steps = grid.codes(range(64)).int() - blocks.zero_points.int()
    assert torch.equal(steps, parts[NAME].int())
    assert torch.equal(blocks.scales * steps, checkpoint.tensor(NAME))
    assert read.stored_bytes == 64 * 96 + 64 * 4 + 1
    assert "rounds most activations to int8 too" in checkpoint.notes[-1]


def test_orders_of_old_gpus_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match=r"weight_format is 2, an order of the numbers .* save it again"):
        Checkpoint(write(tmp_path, int8(layout=2)[0], EIGHT))


def test_float_weights_are_read_as_they_are(tmp_path: Path) -> None:
    """config.json asks for quantization while the model is loaded."""
    checkpoint = Checkpoint(write(tmp_path, {NAME: weight()}))
    assert not checkpoint.quantized
    assert torch.equal(checkpoint.tensor(NAME), weight())
    assert "the weights are stored in float, and read as they are" in checkpoint.notes[-1]


def test_settings_of_a_published_checkpoint(tmp_path: Path) -> None:
    published = read_object(Path(__file__).parents[1] / "published/quantized.json")
    settings = published["Qwen2.5-7B in 4 bits of bitsandbytes"]["quantization_config"]
    parts, expected = quantized(weight(), quant_type="nf4", compress_statistics=True)
    assert torch.equal(Checkpoint(write(tmp_path, parts, settings)).tensor(NAME), expected)


def state(**changes: Any) -> Callable[[Tensors], None]:
    """Return a change of the JSON in the state's tensor."""

    def change(parts: Tensors) -> None:
        values = json.loads(bytes(parts[STATE].tolist())) | changes
        parts[STATE] = text(json.dumps(values))

    return change


def text(content: str) -> Tensor:
    return torch.tensor(list(content.encode()), dtype=torch.uint8)


def tensor(part: str, change: Callable[[Tensor], Tensor]) -> Callable[[Tensors], None]:
    def changed(parts: Tensors) -> None:
        name = f"{NAME}{part}" if part != STATE else STATE
        parts[name] = change(parts[name])

    return changed


def without(name: str) -> Callable[[Tensors], None]:
    def changed(parts: Tensors) -> None:
        del parts[name]

    return changed


def filled(value: float) -> Callable[[Tensor], Tensor]:
    return lambda tensor: torch.full_like(tensor, value)


def both_states(parts: Tensors) -> None:
    fp4, _ = quantized(weight(), quant_type="fp4", compress_statistics=True)
    name = STATE.replace("nf4", "fp4")
    parts[name] = fp4[name]


DAMAGES: dict[str, tuple[Callable[[Tensors], None], str]] = {
    "no state": (without(STATE), r"belongs to a quantized weight whose other tensors .* are missing"),
    "no absmax": (
        without(f"{NAME}.absmax"),
        r"tensor model.layers.0.mlp.down_proj.weight.absmax is missing; fetch the",
    ),
    "no codebook": (without(f"{NAME}.quant_map"), r"weight.quant_map is missing"),
    "no nested absmax": (without(f"{NAME}.nested_absmax"), r"weight.nested_absmax is missing"),
    "no nested codebook": (without(f"{NAME}.nested_quant_map"), r"weight.nested_quant_map is missing"),
    "no codes": (without(NAME), r"tensor model.layers.0.mlp.down_proj.weight is missing"),
    "two states": (both_states, r"has two quantization states, nf4 and fp4"),
    "block size 0": (state(blocksize=0), r"blocksize is 0, expected one of 32, 64"),
    "block size 65": (state(blocksize=65), r"blocksize is 65, expected one of"),
    "block size as a text": (state(blocksize="64"), r"blocksize is '64', expected a whole number"),
    "another block size": (state(blocksize=128), r"weight.absmax has shape \[96\], expected \[48\]"),
    "no shape": (state(shape=None), r"shape is missing, expected the two sizes of a matrix"),
    "three sizes": (state(shape=[2, 32, 96]), r"shape is \[2, 32, 96\], expected the two sizes"),
    "another shape": (state(shape=[64, 97]), r"has 3,072 bytes, and its state says 64 x 97 numbers in 4 bits"),
    "a huge shape": (state(shape=[2**62, 2**62]), r"has 3,072 bytes, and its state says"),
    "a negative shape": (state(shape=[-64, -96]), r"shape is \[-64, -96\], expected a whole number"),
    "another type": (state(quant_type="fp4"), r"quant_type is 'fp4', expected nf4"),
    "nested block size 0": (state(nested_blocksize=0), r"nested_blocksize is 0, expected one of"),
    "nested block size": (state(nested_blocksize=64), r"weight.nested_absmax has shape \[1\], expected \[2\]"),
    "no nested offset": (state(nested_offset=None), r"nested_offset is missing, expected a number"),
    "no nesting": (state(nested_offset=None, nested_blocksize=None), r"weight.absmax is U8, expected F32"),
    "a nested offset of NaN": (state(nested_offset=float("nan")), r"nested_offset is nan, expected a number"),
    "no JSON": (tensor(STATE, lambda _: text("{")), r"__nf4 cannot be read as JSON"),
    "no object": (tensor(STATE, lambda _: text("[]")), r"cannot be read as JSON \(expected a JSON object\)"),
    "no text": (tensor(STATE, filled(255)), r"cannot be read as JSON"),
    "long JSON": (tensor(STATE, lambda one: one.repeat(1000)), r"has 1\d\d,000 bytes of JSON"),
    "floats as state": (tensor(STATE, lambda one: one.float()), r"__nf4 is F32, expected U8"),
    "truncated codes": (tensor("", lambda one: one[:-1]), r"has 3,071 bytes, and its state says"),
    "codes as a matrix": (tensor("", lambda one: one.view(64, 48)), r"has shape \[64, 48\], expected \[\*, 1\]"),
    "codes as int32": (tensor("", lambda one: one.int()), r"weight is I32, expected U8 or I8 or BF16"),
    "fewer absmax": (tensor(".absmax", lambda one: one[1:]), r"weight.absmax has shape \[95\], expected \[96\]"),
    "another codebook": (tensor(".quant_map", filled(0.5)), r"quant_map is not the codebook of nf4"),
    "a codebook of NaN": (tensor(".quant_map", filled(float("nan"))), r"quant_map is not the codebook of nf4"),
    "a nested NaN": (tensor(".nested_quant_map", filled(float("nan"))), r"holds a number that is infinite or NaN"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_weights(damage: str, tmp_path: Path) -> None:
    change, message = DAMAGES[damage]
    parts, _ = quantized(weight(), quant_type="nf4", compress_statistics=True)
    change(parts)
    with pytest.raises(CheckpointError, match=message):
        Checkpoint(write(tmp_path, parts))


@pytest.mark.parametrize(("part", "double"), [("nested_absmax", True), ("absmax", False)])
def test_scales_that_are_not_numbers(part: str, double: bool, tmp_path: Path) -> None:
    """They are read with the weight."""
    parts, _ = quantized(weight(), quant_type="nf4", compress_statistics=double)
    parts[f"{NAME}.{part}"][0] = float("inf")
    checkpoint = Checkpoint(write(tmp_path, parts))
    with pytest.raises(CheckpointError, match=r"weight.absmax holds a number that is infinite or NaN; fetch"):
        checkpoint.tensor(NAME)


INT8_DAMAGES: dict[str, tuple[Callable[[Tensors], None], str]] = {
    "no scales": (without(f"{MODULE}.SCB"), r"whose other tensors .*SCB\) are missing"),
    "no codes": (without(NAME), r"down_proj.weight is missing"),
    "codes of uint8": (lambda parts: parts.update({NAME: parts[NAME].view(torch.uint8)}), r"is U8, expected I8"),
    "fewer scales": (lambda parts: parts.update({f"{MODULE}.SCB": torch.ones(63)}), r"SCB has shape \[63\], expected"),
    "two formats": (
        lambda parts: parts.update({f"{MODULE}.weight_format": torch.zeros(2, dtype=torch.uint8)}),
        r"weight_format has shape \[2\], expected \[\]",
    ),
}


@pytest.mark.parametrize("damage", INT8_DAMAGES)
def test_damaged_int8(damage: str, tmp_path: Path) -> None:
    change, message = INT8_DAMAGES[damage]
    parts, _ = int8()
    change(parts)
    with pytest.raises(CheckpointError, match=message):
        Checkpoint(write(tmp_path, parts, EIGHT))


CONTRADICTIONS: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "eight bits": (EIGHT, CheckpointError, r"quantization_config does not say load_in_4bit, and .* is stored so"),
    "another type": (SETTINGS | {"bnb_4bit_quant_type": "fp4"}, CheckpointError, r"is 'fp4', and .* is stored in nf4"),
    "both": (SETTINGS | {"load_in_8bit": True}, CheckpointError, r"has both load_in_4bit and load_in_8bit"),
    "a text": (SETTINGS | {"load_in_4bit": "yes"}, CheckpointError, r"load_in_4bit is 'yes', expected true or false"),
    "skipped": (
        SETTINGS | {"llm_int8_skip_modules": [1]},
        CheckpointError,
        r"llm_int8_skip_modules is \[1\], expected",
    ),
    "unknown": (SETTINGS | {"rotation": 1}, UnsupportedError, r"has 'rotation', a setting of bitsandbytes that is not"),
}


@pytest.mark.parametrize("contradiction", CONTRADICTIONS)
def test_settings_that_contradict_the_tensors(contradiction: str, tmp_path: Path) -> None:
    settings, error, message = CONTRADICTIONS[contradiction]
    parts, _ = quantized(weight(), quant_type="nf4")
    with pytest.raises(error, match=message):
        Checkpoint(write(tmp_path, parts, settings))


def test_other_types_of_bitsandbytes_are_refused(tmp_path: Path) -> None:
    parts, _ = quantized(weight(), quant_type="nf4")
    parts[STATE.replace("nf4", "int2")] = parts.pop(STATE)
    with pytest.raises(UnsupportedError, match=r"__int2 is of a type of bitsandbytes that is not read .*: nf4, fp4"):
        Checkpoint(write(tmp_path, parts))
