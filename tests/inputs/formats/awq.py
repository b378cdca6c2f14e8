"""AWQ checkpoints in the layout gemm."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from .. import library_folder
from ..case import Case
from ..int32_words import awq, awq_values, quantize
from ..packed_folder import dequantized, settings_of, write

Array = NDArray[Any]

PACKER = "a packer of the tests, from AutoAWQ's layout"
SETTINGS = {"quant_method": "awq", "bits": 4, "version": "gemm", "modules_to_not_convert": None}


def make(group_size: int, zero_point: bool, kept: str, folder: Path, family: str) -> Path:
    """Write a checkpoint; modules with ``kept`` in their names are left as they are."""

    def pack(module: str, weight: Array) -> Mapping[str, Array] | None:
        if "lm_head" in module or "embed" in module or (kept and kept in module):
            return None
        columns = weight.shape[1]
        groups = np.arange(columns) // (columns if group_size == -1 else group_size)
        return awq(quantize(weight, 4, groups, symmetric=not zero_point))

    own = {"group_size": group_size, "zero_point": zero_point}
    return write(folder, family, SETTINGS | own | ({"modules_to_not_convert": [kept]} if kept else {}), pack)


def weights(folder: Path) -> Mapping[str, Tensor]:
    """Return its quantized weights, as the packer's own reader dequantizes them."""
    size = settings_of(folder)["group_size"]
    return dequantized(folder, lambda _, stored: awq_values(stored, size))


def case(words: str, group_size: int, zero_point: bool = True, kept: str = "") -> Case:
    return Case("AWQ", words, PACKER, partial(make, group_size, zero_point, kept), weights)


def by_library(settings: Mapping[str, Any], stored: dict[str, Array]) -> Array:
    """Dequantize a weight of a library's checkpoint."""
    return awq_values(stored, settings["group_size"])


FIXTURES = {"qwen2": "auto-round-awq", "exaone4": "awq"}

CASES = (
    library_folder.case("AWQ", "4 bits, groups of 32", "auto-round", FIXTURES, by_library),
    case("4 bits, groups of 64", 64),
    case("4 bits, groups of 32, symmetric", 32, zero_point=False),
    case("4 bits, one group a row", -1),
    case("4 bits, groups of 64, a module left as it is", 64, kept="down_proj"),
)
