"""The types of a GGUF file's tensors: one table.

A quantized type stores blocks. Those of the K types have 256 numbers, with a scale for every 16 or 32 of them.
Layouts: ggml-common.h of llama.cpp (https://github.com/ggml-org/ggml/blob/master/src/ggml-common.h).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from . import unpack

Bytes = npt.NDArray[np.uint8]
Codes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Grid:
    """How the blocks of a type hold whole numbers: number = scale * (code - zero_point) + offset.

    Args:
        bits: of a code.
        group: consecutive numbers with one scale.
        zero_point: the code of 0, or of the offset.
        codes: from blocks [B, bytes] to codes uint8 [B, elements].
        scales: from blocks [B, bytes] to scales [B, groups], and offsets or None.
    """

    bits: int
    group: int
    zero_point: int
    codes: Callable[[Bytes], Codes]
    scales: Callable[[Bytes], tuple[Floats, Floats | None]]


@dataclass(frozen=True)
class BlockType:
    """A type: ``elements`` numbers take ``nbytes`` bytes. ``dtype`` as safetensors names it, or else a ``grid``."""

    name: str
    elements: int
    nbytes: int
    dtype: str | None = None
    grid: Grid | None = None


BLOCK_TYPES: Mapping[int, BlockType] = {
    0: BlockType("F32", 1, 4, "F32"),
    1: BlockType("F16", 1, 2, "F16"),
    2: BlockType("Q4_0", 32, 18, grid=Grid(4, 32, 8, unpack.q4_0_codes, unpack.scale_first)),
    3: BlockType("Q4_1", 32, 20, grid=Grid(4, 32, 0, unpack.q4_1_codes, unpack.scale_and_minimum)),
    6: BlockType("Q5_0", 32, 22, grid=Grid(5, 32, 16, unpack.q5_0_codes, unpack.scale_first)),
    7: BlockType("Q5_1", 32, 24, grid=Grid(5, 32, 0, unpack.q5_1_codes, unpack.scale_and_minimum)),
    8: BlockType("Q8_0", 32, 34, grid=Grid(8, 32, 128, unpack.q8_0_codes, unpack.scale_first)),
    10: BlockType("Q2_K", 256, 84, grid=Grid(2, 16, 0, unpack.q2_k_codes, unpack.q2_k_scales)),
    11: BlockType("Q3_K", 256, 110, grid=Grid(3, 16, 4, unpack.q3_k_codes, unpack.q3_k_scales)),
    12: BlockType("Q4_K", 256, 144, grid=Grid(4, 32, 0, unpack.q4_k_codes, unpack.q4_k_scales)),
    13: BlockType("Q5_K", 256, 176, grid=Grid(5, 32, 0, unpack.q5_k_codes, unpack.q4_k_scales)),
    14: BlockType("Q6_K", 256, 210, grid=Grid(6, 16, 32, unpack.q6_k_codes, unpack.q6_k_scales)),
    20: BlockType("IQ4_NL", 32, 18, grid=Grid(8, 32, 128, unpack.iq4_nl_codes, unpack.scale_first)),
    23: BlockType("IQ4_XS", 256, 136, grid=Grid(8, 32, 128, unpack.iq4_xs_codes, unpack.iq4_xs_scales)),
    28: BlockType("F64", 1, 8, "F64"),
    30: BlockType("BF16", 1, 2, "BF16"),
    34: BlockType("TQ1_0", 256, 54, grid=Grid(2, 256, 1, unpack.tq1_0_codes, unpack.scale_last)),
    35: BlockType("TQ2_0", 256, 66, grid=Grid(2, 256, 1, unpack.tq2_0_codes, unpack.scale_last)),
    39: BlockType("MXFP4", 32, 17, grid=Grid(5, 32, 12, unpack.mxfp4_codes, unpack.mxfp4_scales)),
}
"""The types that are read, by their number in a file."""

UNREADABLE: Mapping[int, str] = {
    4: "Q4_2",
    5: "Q4_3",
    9: "Q8_1",
    15: "Q8_K",
    16: "IQ2_XXS",
    17: "IQ2_XS",
    18: "IQ3_XXS",
    19: "IQ1_S",
    21: "IQ3_S",
    22: "IQ2_S",
    24: "I8",
    25: "I16",
    26: "I32",
    27: "I64",
    29: "IQ1_M",
    31: "Q4_0_4_4",
    32: "Q4_0_4_8",
    33: "Q4_0_8_8",
    36: "IQ4_NL_4_4",
    37: "IQ4_NL_4_8",
    38: "IQ4_NL_8_8",
    40: "NVFP4",
    41: "Q1_0",
}
"""The other types, for messages."""
