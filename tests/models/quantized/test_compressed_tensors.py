"""Weights in the formats of compressed-tensors, against what the library decompresses."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from intaglio.errors import CheckpointError, IntaglioError, UnsupportedError
from intaglio.models.checkpoint import Checkpoint
from intaglio.models.quantized.scaled.codes import PackedCodes, Packing
from intaglio.models.quantized.scaled.tables import PackedZeroPoints, power_of_two
from intaglio.tests.inputs.case import Case
from intaglio.tests.inputs.formats import compressed_tensors as cases
from safetensors.torch import load_file, save_file
from torch import Tensor

from .memory import Memory, check_weight

pytest.importorskip("compressed_tensors")

DOWN = "model.layers.0.mlp.down_proj"


@pytest.mark.parametrize("case", cases.CASES + cases.MORE, ids=lambda case: case.variant)
def test_values_and_codes_are_the_librarys(case: Case, tmp_path: Path) -> None:
    source = case.make(tmp_path, "exaone4")
    expected = case.weights(source)
    checkpoint = Checkpoint(source)
    assert set(checkpoint.quantized) == set(expected)
    for name in sorted(expected)[:7]:
        check_weight(checkpoint.quantized[name], expected[name])
    assert not any(
        part in name for name in checkpoint.tensors for part in ("_scale", "_shape", "_packed", "_zero_point")
    )


@pytest.mark.parametrize("bits", range(1, 9))
def test_packed_codes_and_zero_points_are_the_librarys(bits: int) -> None:
    from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32

    generator = torch.Generator().manual_seed(bits)
    least = -(2 ** (bits - 1))
    numbers = torch.randint(least, -least, (44, 75), generator=generator, dtype=torch.int8)
    store = Memory({"codes": pack_to_int32(numbers, bits), "zeros": pack_to_int32(numbers, bits, packed_dim=0)})
    packing = Packing(bits, dense=32 % bits != 0)
    codes, zeros = PackedCodes(store, "codes", packing), PackedZeroPoints(store, "zeros", packing)
    expected = (numbers.short() - least).to(torch.uint8)
    for rows, columns in ((range(44), range(75)), (range(7, 21), range(33, 64)), (range(40, 44), range(1, 2))):
        part = expected[rows.start : rows.stop, columns.start : columns.stop]
        assert torch.equal(codes.read(rows, columns), part)
        assert torch.equal(zeros.rows(rows)[:, columns.start : columns.stop], part)


def test_three_bits_as_older_versions_pack_them(tmp_path: Path) -> None:
    """Ten codes to a word; newer versions take fewer words for as many codes."""
    source = cases.make(tmp_path, "qwen2", "W3A16")
    expected = cases.decompressed(source)
    whole = Checkpoint(source)
    tensors = load_file(source / "model.safetensors")
    for name in expected:
        codes = _codes(whole, name).long()
        padded = torch.nn.functional.pad(codes, (0, -codes.shape[1] % 10)).reshape(len(codes), -1, 10)
        words = (padded << (3 * torch.arange(10))).sum(-1).to(torch.int32)
        tensors[f"{name}_packed"] = words
    save_file(tensors, source / "model.safetensors", {"format": "pt"})
    checkpoint = Checkpoint(source)
    for name in sorted(expected)[:2]:
        check_weight(checkpoint.quantized[name], expected[name])


def _codes(checkpoint: Checkpoint, name: str) -> Tensor:
    grid = checkpoint.quantized[name].grid
    assert grid is not None
    return grid.codes(range(checkpoint.tensors[name].shape[0]))


def test_exponents_as_bytes() -> None:
    found = power_of_two(torch.tensor([0, 1, 127, 130, 254, 255], dtype=torch.uint8))
    assert found[:-1].tolist() == [2.0**-127, 2.0**-126, 1.0, 8.0, 2.0**127]
    assert bool(found[-1].isnan())


def test_notes_say_what_is_left_out(tmp_path: Path) -> None:
    source = cases.make(tmp_path, "qwen2", "FP8")
    settings = _settings(source)
    settings["kv_cache_scheme"] = {"num_bits": 8, "type": "float"}
    _write_settings(source, settings)
    _edit(source, lambda tensors: tensors | {"model.layers.0.self_attn.k_scale": torch.tensor([0.5])})
    checkpoint = Checkpoint(source)
    assert checkpoint.notes == (
        "the checkpoint quantizes input activations to 8-bit floats with stored scales; its activations are computed "
        "in float",
        "the checkpoint's quantization of the KV cache (kv_cache_scheme) is not used",
    )
    assert "model.layers.0.self_attn.k_scale" not in checkpoint.tensors
    assert f"{DOWN}.input_scale" not in checkpoint.tensors


def test_a_name_comes_before_a_pattern_and_a_class(tmp_path: Path) -> None:
    source = cases.make(tmp_path, "qwen2", {DOWN: "W8A16", r"re:.*mlp.*": "W4A16", "Linear": "W2A16"})
    formats = {name.rpartition("0.")[2]: one.format for name, one in Checkpoint(source).quantized.items()}
    assert [formats[f"{one}_proj.weight"].split(", ")[1] for one in ("mlp.down", "mlp.up", "self_attn.q")] == [
        "int8",
        "int4",
        "int2",
    ]


def test_an_embedding_is_a_class_of_its_own(sound: Path, tmp_path: Path) -> None:
    source = _copy(sound, tmp_path)
    settings = _settings(source)
    eight = {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "channel"}
    settings["config_groups"]["group_1"] = {"targets": ["Embedding"], "weights": eight, "format": "int-quantized"}
    _write_settings(source, settings)
    codes = torch.randint(-128, 128, (288, 256), generator=torch.Generator().manual_seed(3), dtype=torch.int8)
    scales = torch.linspace(0.001, 0.01, 288).reshape(288, 1)
    added = {"model.embed_tokens.weight": codes, "model.embed_tokens.weight_scale": scales}
    _edit(source, lambda tensors: tensors | added)
    checkpoint = Checkpoint(source)
    check_weight(checkpoint.quantized["model.embed_tokens.weight"], codes.float() * scales)
    assert "int4" in checkpoint.quantized[f"{DOWN}.weight"].format


def test_settings_under_the_older_key(sound: Path, tmp_path: Path) -> None:
    source = _copy(sound, tmp_path)
    values = json.loads((source / "config.json").read_text(encoding="utf-8"))
    values["compression_config"] = values.pop("quantization_config")
    (source / "config.json").write_text(json.dumps(values), encoding="utf-8")
    assert set(Checkpoint(source).quantized) == set(Checkpoint(sound).quantized)


def test_patterns_and_long_names_are_refused_at_once(sound: Path, tmp_path: Path) -> None:
    source = _copy(sound, tmp_path)
    settings = _settings(source)
    settings["ignore"].append("re:.*a.*a.*a.*a.*b$")
    _write_settings(source, settings)
    assert Checkpoint(source).quantized
    _edit(source, lambda tensors: tensors | {f"{'a' * 1000}.weight": torch.zeros(1)})
    with pytest.raises(UnsupportedError, match=r"patterns \(re:\) .* with names of 1,000 characters"):
        Checkpoint(source)


def _settings(source: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((source / "config.json").read_text(encoding="utf-8"))["quantization_config"]
    return found


def _write_settings(source: Path, settings: dict[str, Any]) -> None:
    values = json.loads((source / "config.json").read_text(encoding="utf-8")) | {"quantization_config": settings}
    (source / "config.json").write_text(json.dumps(values), encoding="utf-8")


def _edit(source: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
    save_file(change(load_file(source / "model.safetensors")), source / "model.safetensors", {"format": "pt"})


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a checkpoint of 4 bits, groups of 128, zero points."""
    return cases.make(tmp_path_factory.mktemp("sound"), "qwen2", "W4A16_ASYM")


def _copy(source: Path, to: Path) -> Path:
    for file in source.iterdir():
        (to / file.name).write_bytes(file.read_bytes())
    return to


def _group(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda settings: settings["config_groups"]["group_0"].update(changes)


def _weights(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda settings: settings["config_groups"]["group_0"]["weights"].update(changes)


def _top(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda settings: settings.update(changes)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (_top(transform_config={"config_groups": {"u": {}}}), UnsupportedError, "transform_config rotates weights"),
        (_top(sparsity_config={"format": "sparse-bitmask"}), UnsupportedError, "sparse weights ('sparse-bitmask')"),
        (_top(config_groups={"W4A16": ["Linear"]}), UnsupportedError, "'W4A16' is a preset, known by its name alone"),
        (_top(config_groups=[]), CheckpointError, "config_groups is [], expected an object"),
        (_top(config_groups={}), CheckpointError, "is stored quantized (model.layers.0.mlp.down_proj.weight_packed)"),
        (_top(ignore=["Linear"]), CheckpointError, "and config_groups and ignore leave it out"),
        (_top(ignore=[]), CheckpointError, "quantizes lm_head, and model.safetensors stores its weight as F32"),
        (_top(ignore=["lm_head", "re:("]), CheckpointError, "'re:(' is not a pattern"),
        (_top(ignore=["lm_head", "re:(a+)+$"]), UnsupportedError, "the pattern 're:(a+)+$' repeats a group"),
        (_top(ignore=["lm_head", "re:" + ".*a" * 9]), UnsupportedError, "repeats more than 6 times"),
        (_top(ignore=["lm_head", "re:" + "(a|a)" * 40]), UnsupportedError, "could take very long with names of"),
        (_top(ignore=["lm_head", "re:" + "a?" * 40]), UnsupportedError, "could take very long with names of"),
        (_top(ignore=["lm_head", "re:" + "a|" * 2000]), UnsupportedError, "can take very long and is not read"),
        (_group(format="marlin-24"), UnsupportedError, "has the format 'marlin-24', which is not read"),
        (_group(format="mixed-precision"), CheckpointError, "format is missing, and that of all groups"),
        (_group(format="dense"), UnsupportedError, "its weight is still to be quantized when it is used"),
        (_group(targets=[]), CheckpointError, "targets is missing"),
        (_group(weights=None), CheckpointError, "and config_groups and ignore leave it out"),
        (_group(format="int-quantized"), CheckpointError, "down_proj.weight is missing, which int-quantized needs"),
        (_weights(type="complex"), CheckpointError, "type is 'complex', expected int or float"),
        (_weights(num_bits=0), CheckpointError, "num_bits is 0, expected a whole number from 1 to 32"),
        (_weights(num_bits=16), UnsupportedError, "has integers of 16 bits, and up to 8 are read"),
        (_weights(num_bits=8), CheckpointError, "says [256, 384] in 8 bits"),
        (_weights(type="float"), UnsupportedError, "has floats of 4 bits in the format pack-quantized"),
        (_weights(group_size=0), CheckpointError, "group_size is 0, expected a whole number of at least 1, or -1"),
        (_weights(group_size=None), CheckpointError, "group_size is missing, expected a whole number"),
        (_weights(group_size=64), CheckpointError, "in blocks of 1 x 64 has [256, 6]"),
        (_weights(strategy="token"), UnsupportedError, "strategy is 'token', which is not read for weights"),
        (_weights(strategy="block"), CheckpointError, "block_structure is missing, expected two whole numbers"),
        (_weights(actorder="group"), CheckpointError, "weight_g_idx is missing, which pack-quantized needs"),
        (
            _weights(actorder="group", strategy="channel"),
            CheckpointError,
            "actorder orders groups, and the strategy is channel",
        ),
    ],
)
def test_settings_are_refused(
    change: Callable[[dict[str, Any]], None], error: type[IntaglioError], message: str, sound: Path, tmp_path: Path
) -> None:
    source = _copy(sound, tmp_path)
    settings = _settings(source)
    change(settings)
    _write_settings(source, settings)
    with pytest.raises(error) as raised:
        Checkpoint(source)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("part", "tensor", "message"),
    [
        ("weight_scale", None, "weight_scale is missing, which pack-quantized needs"),
        ("weight_shape", None, "weight_shape is missing"),
        ("weight_zero_point", None, "weight_zero_point is missing"),
        ("weight_packed", None, "weight_packed is missing"),
        ("weight_packed", torch.zeros(256, 48), "has the dtype F32, and pack-quantized stores I32"),
        ("weight_packed", torch.zeros(256, dtype=torch.int32), "has the shape [256], not a matrix'"),
        ("weight_packed", torch.zeros(0, 48, dtype=torch.int32), "has the shape [0, 48], not a matrix'"),
        ("weight_packed", torch.zeros(256, 47, dtype=torch.int32), "says [256, 384] in 4 bits"),
        ("weight_shape", torch.tensor([256, 1 << 60]), "says [256, 1152921504606846976] in 4 bits"),
        ("weight_shape", torch.tensor([256, -384]), "says [256, -384] in 4 bits"),
        ("weight_shape", torch.tensor([255, 384]), "says [255, 384] in 4 bits"),
        ("weight_shape", torch.tensor([256]), "weight_shape is not two numbers"),
        ("weight_scale", torch.ones(256, 4), "has the shape [256, 4], and a weight [256, 384] in blocks of 1 x 128"),
        ("weight_zero_point", torch.zeros(31, 3, dtype=torch.int32), "does not hold 4-bit zero points of 256 x 3"),
        ("weight_zero_point", torch.zeros(32, dtype=torch.int32), "does not hold 4-bit zero points"),
        ("weight_g_idx", torch.arange(384).flip(0) // 128, "orders columns by group, and actorder in config.json"),
        ("weight_g_idx", torch.arange(384), "names group 383, and the weight has 3 groups"),
        ("weight_g_idx", torch.arange(384) // 128 - 1, "names group -1, and the weight has 3 groups"),
        ("weight_g_idx", torch.zeros(384, dtype=torch.int32), "does not put 128 columns into each of 3 groups"),
        ("weight_g_idx", torch.zeros(383, dtype=torch.int32), "has the shape [383], and the weight has 384 columns"),
    ],
)
def test_damaged_tensors_are_refused(
    part: str, tensor: Tensor | None, message: str, sound: Path, tmp_path: Path
) -> None:
    source = _copy(sound, tmp_path)
    name = f"{DOWN}.{part}"
    _edit(source, lambda tensors: {key: one for key, one in tensors.items() if key != name})
    if tensor is not None:
        _edit(source, lambda tensors: tensors | {name: tensor})
    with pytest.raises(CheckpointError) as raised:
        Checkpoint(source)
    assert message in str(raised.value)
    assert DOWN in str(raised.value)


@pytest.mark.parametrize("number", [torch.nan, torch.inf])
def test_scales_that_are_no_numbers_are_refused(number: float, sound: Path, tmp_path: Path) -> None:
    source = _copy(sound, tmp_path)
    scales = load_file(source / "model.safetensors")[f"{DOWN}.weight_scale"]
    scales[100, 1] = number
    _edit(source, lambda tensors: tensors | {f"{DOWN}.weight_scale": scales})
    checkpoint = Checkpoint(source)
    with pytest.raises(CheckpointError, match=r"down_proj.weight_scale has scales that are NaN or infinite"):
        checkpoint.tensor(f"{DOWN}.weight")


def test_numbers_beyond_their_bits_are_refused(tmp_path: Path) -> None:
    source = cases.make(tmp_path, "qwen2", "W8A8")
    settings = _settings(source)
    _weights(num_bits=4)(settings)
    _write_settings(source, settings)
    with pytest.raises(CheckpointError, match=r"down_proj.weight has numbers of more than 4 bits"):
        Checkpoint(source).tensor(f"{DOWN}.weight")


def test_zero_points_beyond_their_bits_are_refused(sound: Path, tmp_path: Path) -> None:
    """Older versions store zero points as they are, in int8."""
    source = _copy(sound, tmp_path)
    zeros = torch.zeros(256, 3, dtype=torch.int8)
    _edit(source, lambda tensors: tensors | {f"{DOWN}.weight_zero_point": zeros})
    assert Checkpoint(source).tensor(f"{DOWN}.weight").isfinite().all()
    zeros[7, 2] = 8
    _edit(source, lambda tensors: tensors | {f"{DOWN}.weight_zero_point": zeros})
    with pytest.raises(CheckpointError, match=r"weight_zero_point has zero points that are not codes of 4 bits"):
        Checkpoint(source).tensor(f"{DOWN}.weight")


def test_a_global_scale_of_zero_is_refused(tmp_path: Path) -> None:
    source = cases.make(tmp_path, "qwen2", "NVFP4A16")
    _edit(source, lambda tensors: tensors | {f"{DOWN}.weight_global_scale": torch.zeros(1)})
    with pytest.raises(CheckpointError, match=r"weight_global_scale is 0.0, not a scale"):
        Checkpoint(source)


def test_a_weight_of_nan_is_refused(tmp_path: Path) -> None:
    source = cases.make(tmp_path, "qwen2", "FP8")
    weight = load_file(source / "model.safetensors")[f"{DOWN}.weight"].view(torch.uint8)
    weight[0, 0] = 0x7F
    _edit(source, lambda tensors: tensors | {f"{DOWN}.weight": weight.view(torch.float8_e4m3fn)})
    with pytest.raises(CheckpointError, match=r"down_proj.weight has weights that are NaN or infinite"):
        Checkpoint(source).tensor(f"{DOWN}.weight")
