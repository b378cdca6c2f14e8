"""Packed weights of auto-round: its names of layouts, bits by module, zero points that do not wrap, refusals."""

import re
from typing import Any

import numpy as np
import pytest
from intaglio.errors import CheckpointError, UnsupportedError
from intaglio.models.quantized.auto_round import read_auto_round
from intaglio.tests.inputs.int32_words import Packed, Zeros, awq, gptq, quantize

from .packed_drive import WEIGHT, check_weight, noise, read, tensors

SETTINGS: dict[str, Any] = {
    "bits": 4,
    "group_size": 32,
    "sym": True,
    "data_type": "int",
    "act_bits": 16,
    "quant_method": "auto-round",
    "packing_format": "auto_round:auto_gptq",
    "block_name_to_quantize": "model.layers",
    "autoround_version": "0.9.0",
}


def packed(bits: int = 4) -> Packed:
    return quantize(noise(64, 160), bits, np.arange(160) // 32, symmetric=False)


LAYOUTS: list[tuple[dict[str, Any], Zeros | None]] = [
    ({}, "v1"),
    ({"packing_format": "auto_round:gptq"}, "v1"),
    ({"packing_format": None}, "v1"),
    ({"packing_format": "auto_round"}, "v2"),
    ({"packing_format": "auto_round:gptqmodel"}, "v2"),
    ({"packing_format": "auto_round:auto_awq"}, None),
    ({"packing_format": None, "backend": "auto_round:gptq:exllamav2", "quant_method": "intel/auto-round"}, "v1"),
    ({"packing_format": None, "backend": "autoround:exllamav2", "quant_method": "intel/auto-round"}, "v2"),
    ({"packing_format": None, "backend": "auto_round:awq:gemm", "quant_method": "intel/auto-round"}, None),
]


@pytest.mark.parametrize(("changes", "kind"), LAYOUTS)
def test_layouts(changes: dict[str, Any], kind: Zeros | None) -> None:
    source = packed()
    if kind == "v1":
        source.zeros[source.zeros == 0] = 1  # what its writer does, since the format has no zero point of 0
    made = tensors(awq(source) if kind is None else gptq(source, kind, index=False))
    check_weight(read(read_auto_round, SETTINGS | changes, made).weights[WEIGHT], source.values())


@pytest.mark.parametrize("bits", [2, 3, 5, 6, 7, 8])
def test_bits(bits: int) -> None:
    source = packed(bits)
    made = tensors(gptq(source, "v2", index=False))
    found = read(read_auto_round, SETTINGS | {"bits": bits, "packing_format": "auto_round"}, made)
    check_weight(found.weights[WEIGHT], source.values())


def test_bits_by_module() -> None:
    head = packed(8)
    extra = {"lm_head": {"bits": 8, "group_size": 32, "data_type": "int"}, ".*o_proj": {"bits": 16, "data_type": "fp"}}
    made = tensors(gptq(packed(), "v2", index=False)) | tensors(gptq(head, "v2", index=False), "lm_head")
    settings = SETTINGS | {"packing_format": "auto_round", "extra_config": extra}
    check_weight(read(read_auto_round, settings, made).weights["lm_head.weight"], head.values())


def test_zero_points_do_not_wrap() -> None:
    """The largest that a field holds stands for the one above, as auto-round reads it; the grid gets one more bit."""
    source = packed()
    source.zeros[5, 2] = 16
    made = tensors(gptq(source, "v1", index=False))
    found = read(read_auto_round, SETTINGS, made).weights[WEIGHT]
    source.zeros[source.zeros == 0] = 16
    check_weight(found, source.values())
    assert found.grid is not None
    assert found.grid.bits == 5


def test_a_zero_point_of_256_is_on_no_grid() -> None:
    source = packed(8)
    source.zeros[:] = np.clip(source.zeros, 1, 255)
    source.zeros[5, 2] = 256
    made = tensors(gptq(source, "v1", index=False))
    found = read(read_auto_round, SETTINGS | {"bits": 8}, made).weights[WEIGHT]
    assert found.grid is None
    assert np.array_equal(found.values(range(64), range(160)).numpy(), source.values())


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    (
        "layout",
        {"packing_format": "auto_round:fp8_static"},
        "packing_format = 'auto_round:fp8_static' is a layout that ",
    ),
    ("backend", {"packing_format": None, "backend": "itrex"}, "backend = 'itrex' is a layout that is not read; export"),
    ("activations", {"act_bits": 8}, "act_bits = 8 (quantized activations) is not supported; export the checkpoint"),
    ("type", {"data_type": "mx_fp"}, "data_type = 'mx_fp' (another data type of weights) is not supported"),
    ("rotated", {"rotation_config": {"block_size": 32}}, "rotation_config = {'block_size': 32} (rotated activations)"),
    ("scales", {"super_bits": 6}, "super_bits = 6 (quantized scales) is not supported"),
    (
        "bits",
        {"packing_format": "auto_round:auto_awq", "bits": 5},
        "5 bits are not read in this format (those that are: 4",
    ),
    ("module", {"extra_config": {"lm_head": {"bits": 8, "act_bits": 8}}}, "extra_config: lm_head: act_bits = 8 (quant"),
]


@pytest.mark.parametrize(("changes", "message"), [one[1:] for one in REFUSED], ids=[one[0] for one in REFUSED])
def test_settings_that_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UnsupportedError, match=re.escape(message)):
        read(read_auto_round, SETTINGS | changes, tensors(gptq(packed(), "v1", index=False)))


def test_settings_of_a_module_that_are_wrong() -> None:
    with pytest.raises(CheckpointError, match="extra_config: lm_head is 8, expected an object"):
        read(read_auto_round, SETTINGS | {"extra_config": {"lm_head": 8}}, {})
