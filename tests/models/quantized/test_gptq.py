"""Packed weights of GPTQ against a packer of the tests; settings as they are published; every refusal."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from intaglio.errors import CheckpointError, UnsupportedError
from intaglio.models.quantized.gptq import read_gptq
from intaglio.models.quantized.weights import QuantizedWeight
from intaglio.tests.inputs.int32_words import Packed, Zeros, gptq, quantize
from torch import Tensor

from .packed_drive import MODULE, WEIGHT, check_weight, noise, read, tensors

ROWS, COLUMNS = 64, 160
SETTINGS: dict[str, Any] = {"bits": 4, "group_size": 32, "sym": False, "desc_act": False, "quant_method": "gptq"}
V2 = {"checkpoint_format": "gptq_v2"}
GPTQMODEL = {"meta": {"quantizer": "gptqmodel:1.7.3"}}


def packed(bits: int = 4, size: int = 32, *, symmetric: bool = False, shuffled: bool = False) -> Packed:
    groups = np.arange(COLUMNS) // size
    if shuffled:
        groups = np.random.default_rng(1).permutation(groups)
    return quantize(noise(ROWS, COLUMNS), bits, groups, symmetric=symmetric)


def stored(kind: Zeros = "v1", *, index: bool = True, **changes: Any) -> dict[str, Tensor]:
    return tensors(gptq(packed(**changes), kind, index=index))


def weight(found: dict[str, Tensor], **changes: Any) -> QuantizedWeight:
    weights = read(read_gptq, SETTINGS | changes, found)
    assert weights.stored_in == set(found)
    return weights.weights[WEIGHT]


@pytest.mark.parametrize("kind", ["v1", "v2"])
@pytest.mark.parametrize("shuffled", [False, True])
@pytest.mark.parametrize("size", [16, 32, 128])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_equals_the_packer(bits: int, size: int, shuffled: bool, kind: Zeros) -> None:
    source = packed(bits, size, shuffled=shuffled)
    layout = "gptq" if kind == "v1" else "gptq_v2"
    found = weight(tensors(gptq(source, kind)), bits=bits, group_size=size, format=layout, desc_act=shuffled)
    check_weight(found, source.values())
    assert found.grid is not None
    assert (found.grid.bits, found.grid.block_size) == (bits, size)
    assert (found.grid.order is None) == (not shuffled)


def test_one_group_a_row() -> None:
    source = packed(size=COLUMNS)
    found = weight(tensors(gptq(source, "v1", index=False)), group_size=-1)
    check_weight(found, source.values())
    assert found.format == "GPTQ, 4 bits, one group a row"
    assert found.grid is not None
    assert found.grid.block_size == COLUMNS


def test_a_group_longer_than_the_rows() -> None:
    check_weight(weight(stored(size=COLUMNS), group_size=1024), packed(size=COLUMNS).values())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_scales_of_other_dtypes(dtype: torch.dtype) -> None:
    found = stored()
    found[f"{MODULE}.scales"] = found[f"{MODULE}.scales"].to(dtype)
    scales = found[f"{MODULE}.scales"].float().t().numpy()
    source = packed()
    steps = (source.codes - source.zeros[:, source.groups]).astype(np.float32)
    check_weight(weight(found), scales[:, source.groups] * steps)


def test_groups_of_other_sizes_by_their_index() -> None:
    """Columns may be in any group; blocks are the largest that no group shares with another."""
    groups = np.repeat([0, 1, 2], [48, 64, 48])
    source = quantize(noise(ROWS, COLUMNS), 4, groups, symmetric=False)
    found = weight(tensors(gptq(source, "v1")), group_size=64)
    check_weight(found, source.values())
    assert found.grid is not None
    assert found.grid.order is None
    assert found.grid.block_size == 16


def test_the_size_in_the_file() -> None:
    found = weight(stored(shuffled=True), desc_act=True)
    assert found.stored_bytes == ROWS * COLUMNS // 2 + 5 * ROWS // 2 + 2 * 5 * ROWS + 4 * COLUMNS
    assert found.format == "GPTQ, 4 bits, groups of 32, act-order"


class TestZeroPoints:
    """Only a zero point of 0 tells the writers of the first format apart."""

    @staticmethod
    def source(bits: int) -> Packed:
        made = packed(bits)
        made.zeros[::3] = 0
        return made

    @pytest.mark.parametrize("bits", [2, 3, 4, 8])
    def test_wraps_in_its_field(self, bits: int) -> None:
        source = self.source(bits)
        check_weight(weight(tensors(gptq(source, "v1")), bits=bits), source.values())

    @pytest.mark.parametrize("bits", [2, 4, 8])
    def test_borrows_from_the_next_field_as_gptqmodel_stores_it(self, bits: int) -> None:
        source = self.source(bits)
        made = tensors(gptq(source, "v1 in words"))
        check_weight(weight(made, bits=bits, **GPTQMODEL), source.values())
        assert not np.array_equal(made[f"{MODULE}.qzeros"], tensors(gptq(source, "v1"))[f"{MODULE}.qzeros"])

    def test_gptqmodel_stores_3_bits_field_by_field(self) -> None:
        source = self.source(3)
        check_weight(weight(tensors(gptq(source, "v1")), bits=3, **GPTQMODEL), source.values())

    def test_does_not_wrap_in_v2(self) -> None:
        source = self.source(4)
        check_weight(weight(tensors(gptq(source, "v2")), **V2), source.values())


def test_the_head_and_bits_by_module() -> None:
    head = packed(8)
    found = stored() | tensors(gptq(head, "v1"), "lm_head")
    dynamic = {"+:lm_head": {"bits": 8}, "-:.*o_proj": {}}
    weights = read(read_gptq, SETTINGS | {"lm_head": True, "dynamic": dynamic}, found).weights
    assert list(weights) == [WEIGHT, "lm_head.weight"]
    check_weight(weights[WEIGHT], packed().values())
    check_weight(weights["lm_head.weight"], head.values())


def test_biases_of_zeros_are_left_out_where_models_have_none() -> None:
    """AutoGPTQ gave every module a bias."""
    query = "model.layers.0.self_attn.q_proj"
    found = stored() | stored_at(query)
    found |= {f"{MODULE}.bias": torch.zeros(ROWS).half(), f"{query}.bias": torch.zeros(ROWS).half()}
    weights = read(read_gptq, SETTINGS, found)
    assert set(found) - weights.stored_in == {f"{query}.bias"}
    assert weights.notes == ("1 bias of zeros is left out, which the model has no place for",)
    found[f"{MODULE}.bias"][3] = 1
    assert f"{MODULE}.bias" not in read(read_gptq, SETTINGS, found).stored_in


def stored_at(module: str) -> dict[str, Tensor]:
    return tensors(gptq(packed(), "v1"), module)


PUBLISHED: dict[str, dict[str, Any]] = {
    "optimum": {
        "batch_size": 1,
        "bits": 4,
        "block_name_to_quantize": None,
        "cache_block_outputs": True,
        "damp_percent": 0.01,
        "dataset": None,
        "desc_act": False,
        "exllama_config": {"version": 1},
        "group_size": 128,
        "max_input_length": None,
        "model_seqlen": None,
        "sym": True,
        "tokenizer": None,
        "modules_in_block_to_quantize": None,
        "pad_token_id": None,
        "quant_method": "gptq",
        "true_sequential": True,
        "use_cuda_fp16": False,
        "use_exllama": True,
    },
    "AutoGPTQ": {
        "bits": 4,
        "group_size": 128,
        "damp_percent": 0.01,
        "desc_act": False,
        "static_groups": False,
        "sym": True,
        "true_sequential": True,
        "model_name_or_path": None,
        "model_file_base_name": "model",
        "is_marlin_format": False,
        "quant_method": "gptq",
    },
    "GPTQModel 0.9": {
        "bits": 4,
        "dynamic": None,
        "group_size": 128,
        "desc_act": False,
        "static_groups": False,
        "sym": False,
        "lm_head": False,
        "damp_percent": 0.0025,
        "damp_auto_increment": 0.0015,
        "true_sequential": True,
        "model_name_or_path": "",
        "model_file_base_name": "model",
        "quant_method": "gptq",
        "checkpoint_format": "gptq",
        "meta": {"quantizer": "gptqmodel:0.9.10-dev0"},
    },
    "GPTQModel 7": {
        "bits": 4,
        "dynamic": None,
        "group_size": 128,
        "desc_act": False,
        "lm_head": False,
        "method": "gptq",
        "quant_method": "gptq",
        "format": "gptq",
        "checkpoint_format": "gptq",
        "pack_dtype": "int32",
        "rotation": None,
        "sym": True,
        "meta": {"quantizer": ["gptqmodel:7.3.4"], "act_group_aware": True},
    },
    "auto-round": {
        "bits": 4,
        "group_size": 128,
        "sym": True,
        "data_type": "int",
        "iters": 1000,
        "lr": 0.001,
        "autoround_version": "0.4.0.dev",
        "quant_method": "gptq",
        "desc_act": False,
        "true_sequential": False,
        "damp_percent": 0.01,
        "scale_dtype": "torch.float16",
        "quant_block_list": None,
    },
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_settings_as_they_are_published(name: str) -> None:
    source = packed(size=128, symmetric=PUBLISHED[name]["sym"])
    found = tensors(gptq(source, "v1"))
    check_weight(read(read_gptq, PUBLISHED[name], found).weights[WEIGHT], source.values())


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    (
        "marlin",
        {"is_marlin_format": True},
        "is_marlin_format = True (the layout of the Marlin kernel) is not supported",
    ),
    (
        "layout",
        {"checkpoint_format": "marlin"},
        "checkpoint_format = 'marlin' is a layout that is not read (those that ",
    ),
    (
        "newer key",
        {"format": "bitblas"},
        "format = 'bitblas' is a layout that is not read (those that are: gptq, gptq_v2",
    ),
    ("planar", {"format": "gptq_p"}, "format = 'gptq_p' is a layout that is not read"),
    ("words", {"pack_dtype": "int8"}, "pack_dtype = 'int8' (another type of words) is not supported; export the"),
    ("adapter", {"adapter": {"rank": 8}}, "adapter = {'rank': 8} (an adapter beside the weights) is not supported"),
    ("rotation", {"rotation": "hadamard"}, "rotation = 'hadamard' (rotated activations) is not supported"),
    ("bits", {"bits": 6}, "6 bits are not read in this format (those that are: 2, 3, 4, 8); export the checkpoint"),
    ("module", {"dynamic": {"+:x": {"format": "marlin"}}}, "dynamic: +:x: format = 'marlin' (other weights than those"),
    ("bits of a module", {"dynamic": {"+:x": {"bits": 5}}}, "5 bits are not read in this format"),
]


@pytest.mark.parametrize(("changes", "message"), [one[1:] for one in REFUSED], ids=[one[0] for one in REFUSED])
def test_settings_that_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UnsupportedError, match=re.escape(message)):
        read(read_gptq, SETTINGS | changes, stored())


WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("no bits", {"bits": None}, "config.json: quantization_config: bits is missing, expected a whole number"),
    ("bits of text", {"bits": "4"}, "bits is '4', expected a whole number from 1 to 64"),
    ("no group size", {"group_size": None}, "group_size is missing, expected -1 or a positive whole number"),
    ("group size of 0", {"group_size": 0}, "group_size is 0, expected -1 or a positive whole number"),
    ("group size", {"group_size": 10**9}, "group_size is 1000000000, expected -1 or a positive"),
    ("two layouts", {"format": "gptq", "checkpoint_format": "gptq_v2"}, "checkpoint_format and format contradict each"),
    ("dynamic", {"dynamic": {"+:x": 4}}, "dynamic: +:x is 4, expected an object"),
    ("no act-order", {"desc_act": 1}, "desc_act is 1, expected true or false"),
    (
        "other bits",
        {"bits": 8},
        f"{MODULE}.qzeros has shape (5, 8), with 64 rows of 8 bits (config.json: quantization_co",
    ),
    (
        "other groups",
        {"group_size": 64},
        f"{MODULE}.scales has shape (5, 64), with 160 columns in groups of 64 (config.",
    ),
]


@pytest.mark.parametrize(("changes", "message"), [one[1:] for one in WRONG], ids=[one[0] for one in WRONG])
def test_settings_that_are_wrong(changes: dict[str, Any], message: str) -> None:
    with pytest.raises((CheckpointError, ValueError), match=re.escape(message)):
        read(read_gptq, SETTINGS | changes, stored())


def without(part: str) -> Callable[[dict[str, Tensor]], object]:
    return lambda found: found.pop(f"{MODULE}.{part}")


def changed(part: str, change: Callable[[Tensor], Tensor]) -> Callable[[dict[str, Tensor]], object]:
    return lambda found: found.update({f"{MODULE}.{part}": change(found[f"{MODULE}.{part}"])})


DAMAGED: list[tuple[str, Callable[[dict[str, Tensor]], object], str]] = [
    ("no codes", without("qweight"), f"{MODULE}.qweight is missing beside {MODULE}.qzeros; fetch the checkpoint again"),
    ("no zero points", without("qzeros"), f"{MODULE}.qzeros is missing beside {MODULE}.qweight"),
    ("no scales", without("scales"), f"{MODULE}.scales is missing beside {MODULE}.qweight"),
    (
        "no index",
        without("g_idx"),
        f"{MODULE}.g_idx is missing beside {MODULE}.qweight, and config.json: quantization_",
    ),
    ("float codes", changed("qweight", Tensor.float), f"{MODULE}.qweight has dtype F32, and GPTQ is read with I32"),
    (
        "scales of int",
        changed("scales", Tensor.int),
        f"{MODULE}.scales has dtype I32, and GPTQ is read with F16 or BF16",
    ),
    ("a vector", changed("scales", Tensor.flatten), f"{MODULE}.scales has shape (320,), which is not that of a matrix"),
    (
        "nothing",
        changed("scales", lambda one: one[:0]),
        f"{MODULE}.scales has shape (0, 64), which is not that of a ma",
    ),
    (
        "fewer codes",
        changed("qweight", lambda one: one[:, 1:]),
        f"{MODULE}.qweight has shape (20, 63), expected (20, 64)",
    ),
    (
        "fewer zeros",
        changed("qzeros", lambda one: one[1:]),
        f"{MODULE}.qzeros has shape (4, 8), expected (5, 8) for 4 b",
    ),
    (
        "odd zeros",
        changed("qzeros", lambda one: one[:, 1:]),
        f"{MODULE}.qzeros has shape (5, 7), with 64 rows of 4 bits",
    ),
    ("fewer columns", changed("g_idx", lambda one: one[1:]), f"{MODULE}.g_idx has shape (159,), expected (160,) for 4"),
    (
        "fewer rows",
        changed("qweight", lambda one: one[:8]),
        f"{MODULE}.g_idx has shape (160,), expected (64,) for 4 bits",
    ),
    (
        "both",
        lambda found: found.update({WEIGHT: torch.zeros(ROWS, COLUMNS)}),
        f"{WEIGHT} and {MODULE}.qweight are both there, and only one can be the weight; remove the other",
    ),
    ("none", dict.clear, "says that the weights are in GPTQ, and folder has no tensor qweight; remove the settings"),
]


@pytest.mark.parametrize(("damage", "message"), [one[1:] for one in DAMAGED], ids=[one[0] for one in DAMAGED])
def test_headers_that_contradict(damage: Callable[[dict[str, Tensor]], object], message: str) -> None:
    found = stored(shuffled=True)
    damage(found)
    with pytest.raises((CheckpointError, UnsupportedError), match=re.escape(message)):
        read(read_gptq, SETTINGS | {"desc_act": True}, found)


def test_3_bits_need_whole_periods() -> None:
    found = tensors(gptq(packed(3), "v1"))
    found = {name: one[:, :16] if name.endswith(("qweight", "scales")) else one for name, one in found.items()}
    found[f"{MODULE}.qzeros"] = found[f"{MODULE}.qzeros"][:, :1]
    with pytest.raises(CheckpointError, match="with 16 rows of 3 bits"):
        read(read_gptq, SETTINGS | {"bits": 3}, found)


def test_a_group_size_that_the_shapes_leave_open() -> None:
    """160 columns in 3 groups: of 64, or of 56."""
    made = tensors(gptq(packed(size=64), "v1", index=False))
    settings = SETTINGS | {"group_size": 64, "dynamic": {"+:x": {"group_size": 56}}}
    with pytest.raises(UnsupportedError, match=r"the groups of .*scales may have 56 or 64 columns by config.json"):
        read(read_gptq, settings, made)
    made = tensors(gptq(packed(size=64), "v1"))
    check_weight(read(read_gptq, settings, made).weights[WEIGHT], packed(size=64).values())


@pytest.mark.parametrize(("group", "shown"), [(5, "5"), (-1, "-1"), (2**31 - 1, "2147483647")])
def test_a_column_in_a_group_that_is_not_there(group: int, shown: str) -> None:
    found = stored()
    found[f"{MODULE}.g_idx"][7] = group
    one = weight(found)
    message = f"{MODULE}.g_idx has the group {shown}, and {MODULE}.scales has those from 0 to 4; fetch the file again"
    for use in (lambda: one.values(range(1), range(8)), lambda: one.grid and one.grid.order, lambda: one.format):
        with pytest.raises(CheckpointError, match=re.escape(message)):
            use()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_scales_that_are_not_finite(value: float) -> None:
    found = stored()
    found[f"{MODULE}.scales"][2, 3] = value
    one = weight(found)
    assert one.grid is not None
    for use in (lambda: one.values(range(4), range(COLUMNS)), one.grid.parameters):
        with pytest.raises(
            CheckpointError, match=f"{MODULE}.scales has scales that are not finite; fetch the file again"
        ):
            use()


def test_scales_of_zero_stand_for_zeros() -> None:
    found = stored()
    found[f"{MODULE}.scales"][2] = 0
    assert not weight(found).values(range(ROWS), range(64, 96)).any()
