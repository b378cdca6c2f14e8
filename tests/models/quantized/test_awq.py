"""Packed weights of AWQ against a packer of the tests; settings as they are published; every refusal."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from intaglio.errors import CheckpointError, UnsupportedError
from intaglio.models.quantized.awq import read_awq
from intaglio.tests.inputs.int32_words import Packed, awq, quantize
from torch import Tensor

from .packed_drive import MODULE, WEIGHT, check_weight, noise, read, tensors

ROWS, COLUMNS = 64, 160
SETTINGS: dict[str, Any] = {"bits": 4, "group_size": 32, "quant_method": "awq", "version": "gemm", "zero_point": True}


def packed(size: int = 32, *, symmetric: bool = False) -> Packed:
    return quantize(noise(ROWS, COLUMNS), 4, np.arange(COLUMNS) // size, symmetric=symmetric)


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("size", [16, 32, 160])
def test_equals_the_packer(size: int, symmetric: bool) -> None:
    source = packed(size, symmetric=symmetric)
    settings = SETTINGS | {"group_size": -1 if size == COLUMNS else size, "zero_point": not symmetric}
    found = read(read_awq, settings, tensors(awq(source))).weights[WEIGHT]
    check_weight(found, source.values())
    assert found.grid is not None
    assert (found.grid.bits, found.grid.block_size, found.grid.order) == (4, size, None)
    assert found.stored_bytes == ROWS * COLUMNS // 2 + ROWS * COLUMNS // size * 5 // 2


PUBLISHED: dict[str, dict[str, Any]] = {
    "Qwen2": SETTINGS | {"modules_to_not_convert": None},
    "EXAONE": SETTINGS
    | {"backend": "autoawq", "do_fuse": False, "exllama_config": None, "fuse_max_seq_len": None}
    | {"modules_to_fuse": None, "modules_to_not_convert": ["lm_head"]},
    "auto-round": SETTINGS
    | {"provider": "auto-round", "autoround_version": "0.9.0", "sym": False, "data_type": "int", "iters": 200},
    "AutoAWQ's own file": {"zero_point": True, "q_group_size": 32, "w_bit": 4, "version": "GEMM"},
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_settings_as_they_are_published(name: str) -> None:
    source = packed()
    check_weight(read(read_awq, PUBLISHED[name], tensors(awq(source))).weights[WEIGHT], source.values())


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    (
        "gemv",
        {"version": "gemv"},
        "version = 'gemv' is a layout that is not read (gemm is read); export the checkpoint",
    ),
    ("fast", {"version": "GEMV_FAST"}, "version = 'gemv_fast' is a layout that is not read"),
    ("marlin", {"version": "marlin"}, "version = 'marlin' is a layout that is not read"),
    ("exllama", {"version": "exllama"}, "version = 'exllama' is a layout that is not read"),
    ("ipex", {"version": "ipex"}, "version = 'ipex' is a layout that is not read"),
    ("llm-awq", {"backend": "llm-awq"}, "backend = 'llm-awq' (another library's layout) is not supported"),
    ("bits", {"bits": 8}, "8 bits are not read in this format (those that are: 4)"),
]


@pytest.mark.parametrize(("changes", "message"), [one[1:] for one in REFUSED], ids=[one[0] for one in REFUSED])
def test_settings_that_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UnsupportedError, match=re.escape(message)):
        read(read_awq, SETTINGS | changes, tensors(awq(packed())))


def changed(part: str, change: Callable[[Tensor], Tensor]) -> Callable[[dict[str, Tensor]], object]:
    return lambda found: found.update({f"{MODULE}.{part}": change(found[f"{MODULE}.{part}"])})


DAMAGED: list[tuple[str, Callable[[dict[str, Tensor]], object], str]] = [
    ("no zeros", lambda found: found.pop(f"{MODULE}.qzeros"), f"{MODULE}.qzeros is missing beside {MODULE}.qweight"),
    (
        "shape",
        changed("qweight", lambda one: one[:, 1:]),
        f"{MODULE}.qweight has shape (160, 7), expected (160, 8) for",
    ),
    ("columns", changed("qweight", lambda one: one[:80]), f"{MODULE}.scales has shape (5, 64), with 80 columns in gro"),
    (
        "part",
        changed("qweight", lambda one: one[:150]),
        f"{MODULE}.scales has shape (5, 64), and 150 columns are not a",
    ),
    (
        "index",
        lambda found: found.update({f"{MODULE}.g_idx": torch.zeros(COLUMNS, dtype=torch.int32)}),
        f"{MODULE}.g_idx is a tensor of GPTQ, and config.json: quantization_config says AWQ; export the checkpoint",
    ),
]


@pytest.mark.parametrize(("damage", "message"), [one[1:] for one in DAMAGED], ids=[one[0] for one in DAMAGED])
def test_headers_that_contradict(damage: Callable[[dict[str, Tensor]], object], message: str) -> None:
    found = tensors(awq(packed()))
    damage(found)
    with pytest.raises((CheckpointError, UnsupportedError), match=re.escape(message)):
        read(read_awq, SETTINGS, found)
