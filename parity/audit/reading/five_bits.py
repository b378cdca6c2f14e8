"""Weights of 5 bits: the two parts that the function JoinBits joins (``contract.JOIN_BITS``)."""

from dataclasses import fields, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx import FunctionProto
from onnx.reference import ReferenceEvaluator

from ....contract import JOIN_BITS
from .embeddings import UnsupportedUse
from .operands import operand
from .stored import BlockWeight, JoinedArray, MatrixView, MultipliedView, StoredArray

STEP = 32
"""Codes whose lowest bits are together."""


def joined(node: ir.Node, high: StoredArray, folder: Path) -> JoinedArray:
    """Return the codes that a node joins.

    Raises:
        UnsupportedUse: the parts do not fit each other.
    """
    low = operand(node, 1, folder)
    sizes = (*high.shape[:-1], 2 * high.shape[-1]) if len(high.shape) == 3 else ()
    if not sizes or sizes[-1] % STEP or low.shape != (*sizes[:-1], sizes[-1] // 8):
        raise UnsupportedUse(f"its upper bits are {high.shape} and its lowest bits {low.shape}, which do not fit")
    return JoinedArray(f"{high.name} and {low.name}", ir.DataType.UINT8, sizes, high=high, low=low)


def check_function(model: ir.Model) -> None:
    """Check that the function of a graph joins the parts of codes as it should.

    Raises:
        UnsupportedUse: it does not, or there is none.
    """
    function = model.functions.get((*JOIN_BITS, ""))
    if function is None or not _joins(ir.to_proto(function).SerializeToString()):
        raise UnsupportedUse(f"the function {'::'.join(JOIN_BITS)} of the graph does not join the bits of codes")


@cache
def _joins(function: bytes) -> bool:
    """Return True where a serialized function joins two rows of two blocks of 64 random codes."""
    codes = np.random.default_rng(0).integers(0, 32, (2, 2, 64), dtype=np.uint8)
    upper, words = codes >> 1, (codes & 1).reshape(2, 2, 2, 8, 4)
    low = np.zeros((2, 2, 2, 4), np.uint8)
    for place in range(8):
        low |= words[..., place, :] << place
    given = {"high": upper[..., ::2] | upper[..., 1::2] << 4, "low": low.reshape(2, 2, 8)}
    try:
        found: Any = ReferenceEvaluator(FunctionProto.FromString(function)).run(None, given, attributes={})
    except Exception:  # whatever a function of unknown origin does
        return False
    return np.array_equal(found[0], codes * 8)


def as_five_bits(weight: object) -> BlockWeight:
    """Return a weight of 8 bits whose codes are joined as one of 5 bits, of the same numbers.

    Raises:
        UnsupportedUse: it is no weight in blocks.
    """
    if not isinstance(weight, BlockWeight):
        raise UnsupportedUse("its codes of 5 bits are no weight in blocks")
    points = None if weight.zero_points is None else _multiplied(weight.zero_points, 1 / 8)
    scales = _multiplied(weight.scales, 8)
    return replace(weight, scales=scales, zero_points=points, zero_point=weight.zero_point / 8, bits=5)


def _multiplied(view: MatrixView, factor: float) -> MultipliedView:
    own = {one.name: getattr(view, one.name) for one in fields(MatrixView)}
    return MultipliedView(**own, factor=factor)
