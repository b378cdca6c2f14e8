"""GPTQ checkpoints: bits, groups, symmetric and not, the order of columns, both ways to store zero points."""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from .. import library_folder
from ..case import Case
from ..int32_words import Zeros, gptq, gptq_values, quantize
from ..packed_folder import dequantized, write

Array = NDArray[Any]

PACKER = "a packer of the tests, from AutoGPTQ's layout"
INERT = {"damp_percent": 0.01, "true_sequential": True, "model_name_or_path": None, "model_file_base_name": "model"}
OLDER: dict[str, Any] = {"quant_method": "gptq", "checkpoint_format": "gptq", **INERT}
NEWER: dict[str, Any] = {
    "quant_method": "gptq",
    "method": "gptq",
    "checkpoint_format": "gptq_v2",
    "format": "gptq_v2",
    "pack_dtype": "int32",
    "lm_head": False,
    "meta": {"quantizer": ["gptqmodel:7.3.4"], "damp_percent": 0.05, "act_group_aware": True},
}


@dataclass(frozen=True)
class Variant:
    """A checkpoint of GPTQ.

    Args:
        zeros: how zero points are stored.
        index: every weight has a ``g_idx``; of shuffled columns with ``act_order``.
        settings: other keys of its ``quantization_config``.
        more: other bits by a part of the module's name; None leaves it as it is.
    """

    bits: int
    group_size: int
    symmetric: bool
    zeros: Zeros = "v1"
    act_order: bool = False
    index: bool = True
    settings: Mapping[str, Any] = field(default_factory=dict)
    more: Mapping[str, int | None] = field(default_factory=lambda: {"lm_head": None, "embed_tokens": None})

    def bits_of(self, module: str) -> int | None:
        return next((bits for part, bits in self.more.items() if part in module), self.bits)

    def config(self) -> dict[str, Any]:
        own = {"bits": self.bits, "group_size": self.group_size, "sym": self.symmetric, "desc_act": self.act_order}
        return {**(NEWER if self.zeros == "v2" else OLDER), **own, **self.settings}

    def pack(self, module: str, weight: Array) -> Mapping[str, Array] | None:
        bits = self.bits_of(module)
        if bits is None:
            return None
        columns = weight.shape[1]
        groups = np.arange(columns) // (columns if self.group_size == -1 else self.group_size)
        if self.act_order:  # another order in each module, as GPTQ finds it, and the same one in every process
            groups = np.random.default_rng(zlib.crc32(module.encode())).permutation(groups)
        return gptq(quantize(weight, bits, groups, symmetric=self.symmetric), self.zeros, index=self.index)

    def values(self, module: str, stored: dict[str, Array]) -> Array:
        bits = self.bits_of(module)
        assert bits is not None
        return gptq_values(stored, bits, self.zeros, self.group_size)


def make(variant: Variant, folder: Path, family: str) -> Path:
    """Write a checkpoint of a variant."""
    return write(folder, family, variant.config(), variant.pack)


def weights(variant: Variant, folder: Path) -> Mapping[str, Tensor]:
    """Return its quantized weights, as the packer's own reader dequantizes them."""
    return dequantized(folder, variant.values)


def case(words: str, variant: Variant, format: str = "GPTQ") -> Case:
    return Case(format, words, PACKER, partial(make, variant), partial(weights, variant))


HEAD: Mapping[str, int | None] = {"embed_tokens": None}
MIXED: Mapping[str, int | None] = {**HEAD, "lm_head": None, "down_proj": 8, "layers.1.self_attn.o_proj": None}
DYNAMIC = {
    "dynamic": {r"+:.*\.down_proj": {"bits": 8}, r"-:model\.layers\.1\.self_attn\.o_proj": {}},
}


def by_library(settings: Mapping[str, Any], stored: dict[str, Array]) -> Array:
    """Dequantize a weight of GPTQModel's checkpoint, in which no zero point is 0."""
    kind: Zeros = "v2" if settings["checkpoint_format"] == "gptq_v2" else "v1"
    return gptq_values(stored, settings["bits"], kind, settings["group_size"])


FIXTURES = {"qwen2": "gptqmodel-act-order", "exaone4": "gptqmodel-v2"}

CASES = (
    library_folder.case(
        "GPTQ", "4 bits, groups of 32, act-order (Qwen2) or v2 zero points (EXAONE)", "GPTQModel", FIXTURES, by_library
    ),
    case("4 bits, groups of 32, symmetric", Variant(4, 32, True)),
    case("4 bits, groups of 128 of 320 columns, asymmetric", Variant(4, 128, False)),
    case("4 bits, groups of 32, act-order", Variant(4, 32, False, act_order=True)),
    case("4 bits, groups of 128 of 320 columns, act-order", Variant(4, 128, True, act_order=True)),
    case("4 bits, groups of 64, v2 zero points", Variant(4, 64, False, "v2")),
    case("4 bits, groups of 64, v2 zero points, act-order", Variant(4, 64, False, "v2", act_order=True)),
    case("4 bits, one group a row", Variant(4, -1, True)),
    case("4 bits, groups of 16, without g_idx", Variant(4, 16, False, index=False)),
    case(
        "4 bits, zero points of GPTQModel's v1", Variant(4, 32, False, "v1 in words", settings={"meta": NEWER["meta"]})
    ),
    case("8 bits, groups of 32, symmetric", Variant(8, 32, True)),
    case("8 bits, groups of 64, asymmetric, act-order", Variant(8, 64, False, act_order=True)),
    case("4 and 8 bits by module, a module left as it is", Variant(4, 32, True, settings=DYNAMIC, more=MIXED)),
    case("4 bits, groups of 32, the head too", Variant(4, 32, False, settings={"lm_head": True}, more=HEAD)),
    case("2 bits, groups of 32, asymmetric", Variant(2, 32, False)),
    case("3 bits, groups of 32, asymmetric", Variant(3, 32, False)),
    case("3 bits, groups of 32, v2 zero points", Variant(3, 32, True, "v2")),
)
