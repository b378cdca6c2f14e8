"""A quantized table whose rows are gathered as codes and widened by ordinary arithmetic.

What the graph does to a gathered row is done here with NumPy, node by node, up to the product with the scales: no
layout has to be recognized, only operators.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray
from torch import Tensor

from .stored import HALF_BYTES, Array, BlockPiece

Values = NDArray[np.generic]

CASTS = {ir.DataType.FLOAT: np.float32, ir.DataType.FLOAT16: np.float16, ir.DataType.BFLOAT16: np.float32}
ELEMENTWISE = {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "BitwiseXor": np.bitwise_xor,
    "BitwiseAnd": np.bitwise_and,
}
OPERATORS = (*ELEMENTWISE, "Gather", "Cast", "Unsqueeze", "Reshape", "Expand", "Slice", "BitShift")


class Unreadable(Exception):  # noqa: N818 - told in the fault of a tensor
    """A weight is used in a way that is not read here; the message says which."""


@dataclass(frozen=True)
class GatheredTable:
    """Rows of a table [V, K] as the graph computes them: the two factors of ``product``, codes and scales."""

    product: ir.Node
    ids: ir.Value
    folder: Path
    shape: tuple[int, int]
    bits: int
    block_size: int

    by_columns = False
    multiple = 1

    def read(self, rows: range, columns: range) -> BlockPiece:
        assert columns == range(self.shape[1])
        known: dict[ir.Value, Values] = {self.ids: np.array([rows], np.int64)}
        codes, scales = (self._rows(_given(self.product, index), known) for index in (0, 1))
        low = torch.full_like(codes, -(2.0 ** (self.bits - 1)))
        difference = _given(self.product, 0).producer()
        if difference is not None and difference.op_type == "Sub":
            low = -self._rows(_given(difference, 1), known).expand_as(codes)
        return BlockPiece(codes * scales, codes, scales[:, :: self.block_size], low, self.bits)

    def _rows(self, value: ir.Value, known: dict[ir.Value, Values]) -> Tensor:
        """[n, K] of [1, n, K], or a number."""
        found = np.array(self._value(value, known), np.float32)
        return torch.from_numpy(found[0] if found.ndim > 1 else found)

    def _value(self, value: ir.Value, known: dict[ir.Value, Values]) -> Values:
        if value not in known:
            known[value] = self._computed(value, known)
        return known[value]

    def _computed(self, value: ir.Value, known: dict[ir.Value, Values]) -> Values:
        node = value.producer()
        if node is None:
            return _constant(value)
        if node.op_type == "Gather":
            table = Array.of(_given(node, 0), self.folder)
            if table is None or len(table.shape) != 2:
                raise Unreadable(f"{node.name} gathers from no table")
            ids = self._value(_given(node, 1), known)[0]
            width = table.shape[1]
            return table.flat(int(ids[0]) * width, (int(ids[-1]) + 1) * width).view(1, len(ids), width).numpy()
        inputs = [self._value(item, known) for item in node.inputs if item is not None]
        return _run(node, inputs)


def gathered(node: ir.Node, array: Array, folder: Path) -> GatheredTable:
    """The table of a Gather.

    Raises:
        Unreadable: something else than arithmetic follows, or no product with scales.
    """
    if len(array.shape) != 2:
        raise Unreadable(f"it has the shape {array.shape}, and a table has two dimensions")
    bits, after, product = 8, node, None
    while product is None:
        users = [use.node for use in after.outputs[0].uses()]
        if len(users) != 1 or users[0].op_type not in OPERATORS:
            raise Unreadable(f"{after.op_type} is followed by no product with its scales")
        after = users[0]
        bits = 4 if after.op_type in ("BitShift", "BitwiseAnd") or array.type in HALF_BYTES else bits
        product = after if after.op_type == "Mul" else None
    table = GatheredTable(product, _given(node, 1), folder, (array.shape[0], 0), bits, 1)
    known: dict[ir.Value, Values] = {table.ids: np.zeros((1, 1), np.int64)}
    columns = table._value(_given(product, 0), known).shape[-1]
    scales = table._value(_given(product, 1), known)
    if scales.shape[-1] != columns:
        raise Unreadable(f"{product.name} multiplies {columns} codes by {scales.shape[-1]} scales")
    # The scales before they are spread over their blocks say how many there are.
    count = min(held.shape[-1] for value, held in known.items() if _is_gathered(value) and value is not node.outputs[0])
    size = -(-columns // count)
    return GatheredTable(product, table.ids, folder, (array.shape[0], columns), bits, _block_size(size))


def _block_size(least: int) -> int:
    """The power of two that is no less: ``least`` columns to a block are fewer than that where the last is short."""
    return 1 << (least - 1).bit_length()


def _is_gathered(value: ir.Value) -> bool:
    node = value.producer()
    return node is not None and node.op_type == "Gather"


def _given(node: ir.Node, index: int) -> ir.Value:
    value = node.inputs[index]
    assert value is not None
    return value


def _constant(value: ir.Value) -> Values:
    if value.const_value is None:
        raise Unreadable(f"{value.name} is no constant")
    return value.const_value.numpy()


def _run(node: ir.Node, inputs: list[Values]) -> Values:
    """One operator (onnx/docs/Operators.md) on values."""
    first = inputs[0]
    kind = node.op_type
    if kind in ELEMENTWISE:
        if first.dtype == np.float32 and kind.startswith("Bitwise"):  # gathered codes are widened
            first = first.astype(np.uint8)
        result: Values = ELEMENTWISE[kind](first, inputs[1])
        return result
    match kind:
        case "Cast":
            kind_to = ir.DataType(node.attributes["to"].as_int())
            if kind_to not in CASTS:
                raise Unreadable(f"{node.name} casts to {kind_to.name}")
            return first.astype(CASTS[kind_to])
        case "BitShift":
            codes = first.astype(np.uint8)
            left = node.attributes["direction"].as_string() == "LEFT"
            return np.left_shift(codes, inputs[1]) if left else np.right_shift(codes, inputs[1])
        case "Unsqueeze":
            return np.expand_dims(first, tuple(int(axis) for axis in inputs[1].tolist()))
        case "Reshape":
            return first.reshape([first.shape[i] if n == 0 else n for i, n in enumerate(inputs[1].tolist())])
        case "Expand":
            return np.broadcast_to(first, np.broadcast_shapes(first.shape, tuple(inputs[1].tolist())))
        case "Slice":
            starts, ends, axes = (array.tolist() for array in inputs[1:4])
            places = [slice(None)] * first.ndim
            for start, end, axis in zip(starts, ends, axes, strict=True):
                places[axis] = slice(start, end)
            return first[tuple(places)]
    raise Unreadable(f"{node.name} is a {kind}")
