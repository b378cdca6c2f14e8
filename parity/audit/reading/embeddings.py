"""A quantized embedding whose rows are gathered as codes and dequantized by ordinary operators.

The operators after the Gather are computed here with NumPy, up to the multiplication by the scales. So no layout has
to be recognized, only operators.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray
from torch import Tensor

from .stored import FOUR_BITS, BlockPart, StoredArray

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


class UnsupportedUse(Exception):  # noqa: N818 - it becomes the fault of a tensor
    """A node uses a weight in a way that is not known here; the message says how."""


@dataclass(frozen=True)
class QuantizedEmbedding:
    """The rows of an embedding [V, K], as the node ``product`` computes them from codes and scales.

    Args:
        ids: the value that holds the token ids.
        offsets: the value that is added to the product; None where nothing is.
        order: [K], the column of the embedding that each column of the product becomes; None where it is the same.
    """

    product: ir.Node
    ids: ir.Value
    folder: Path
    shape: tuple[int, int]
    bits: int
    block_size: int
    offsets: ir.Value | None = None
    order: tuple[int, ...] | None = None

    by_columns = False
    column_step = 1

    def read(self, rows: range, columns: range) -> BlockPart:
        assert columns == range(self.shape[1])
        known: dict[ir.Value, Values] = {self.ids: np.array([rows], np.int64)}
        codes, scales = (self._rows(_input(self.product, index), known) for index in (0, 1))
        low = torch.full_like(codes, -(2.0 ** (self.bits - 1)))
        difference = _input(self.product, 0).producer()
        if difference is not None and difference.op_type == "Sub":
            low = -self._rows(_input(difference, 1), known).expand_as(codes)
        blocks = slice(None, None, self.block_size)
        if self.offsets is None:
            return BlockPart(codes * scales, codes, scales[:, blocks], low, self.bits)
        offsets = self._rows(self.offsets, known)
        return BlockPart(codes * scales + offsets, codes, scales[:, blocks], low, self.bits, offsets[:, blocks])

    def _rows(self, value: ir.Value, known: dict[ir.Value, Values]) -> Tensor:
        """Return [n, K] of a value [1, n, K]; a scalar as it is."""
        found = np.array(self.compute(value, known), np.float32)
        return torch.from_numpy(found[0] if found.ndim > 1 else found)

    def compute(self, value: ir.Value, known: dict[ir.Value, Values]) -> Values:
        """Return the numbers of a value, and add them and those that they depend on to ``known``."""
        if value not in known:
            known[value] = self._compute(value, known)
        return known[value]

    def _compute(self, value: ir.Value, known: dict[ir.Value, Values]) -> Values:
        node = value.producer()
        if node is None:
            return _constant(value)
        if node.op_type == "Gather":
            table = StoredArray.of(_input(node, 0), self.folder)
            if table is None or len(table.shape) != 2:
                raise UnsupportedUse(f"{node.name} does not gather the rows of an initializer")
            ids = self.compute(_input(node, 1), known)[0]
            width = table.shape[1]
            return table.read(int(ids[0]) * width, (int(ids[-1]) + 1) * width).view(1, len(ids), width).numpy()
        inputs = [self.compute(item, known) for item in node.inputs if item is not None]
        return _run(node, inputs)


def quantized_embedding(node: ir.Node, array: StoredArray, folder: Path) -> QuantizedEmbedding:
    """Return the embedding whose codes a Gather looks up.

    Raises:
        UnsupportedUse: other operators follow it, or no multiplication by scales.
    """
    if len(array.shape) != 2:
        raise UnsupportedUse(f"it has the shape {array.shape}, and an embedding has two dimensions")
    bits, after, product = 8, node, None
    while product is None:
        users = [use.node for use in after.outputs[0].uses()]
        if len(users) != 1 or users[0].op_type not in OPERATORS:
            raise UnsupportedUse(f"{after.op_type} is not followed by a multiplication by scales")
        after = users[0]
        bits = 4 if after.op_type in ("BitShift", "BitwiseAnd") or array.type in FOUR_BITS else bits
        product = after if after.op_type == "Mul" else None
    ids = _input(node, 1)
    known: dict[ir.Value, Values] = {ids: np.zeros((1, 1), np.int64)}
    one_row = QuantizedEmbedding(product, ids, folder, (array.shape[0], 0), bits, 1)
    columns = one_row.compute(_input(product, 0), known).shape[-1]
    scales = one_row.compute(_input(product, 1), known)
    if scales.shape[-1] != columns:
        raise UnsupportedUse(f"{product.name} multiplies {columns} codes by {scales.shape[-1]} scales")
    # The gathered scales, before they are expanded to columns, give the number of blocks.
    count = min(row.shape[-1] for value, row in known.items() if _is_gathered(value) and value is not node.outputs[0])
    block_size = _block_size(-(-columns // count))
    return QuantizedEmbedding(product, ids, folder, (array.shape[0], columns), bits, block_size)


def _block_size(mean: int) -> int:
    """Return the power of two that is at least the mean number of columns in a block; the last block may be short."""
    return 1 << (mean - 1).bit_length()


def _is_gathered(value: ir.Value) -> bool:
    node = value.producer()
    return node is not None and node.op_type == "Gather"


def _input(node: ir.Node, index: int) -> ir.Value:
    value = node.inputs[index]
    assert value is not None
    return value


def _constant(value: ir.Value) -> Values:
    if value.const_value is None:
        raise UnsupportedUse(f"{value.name} is not a constant")
    return value.const_value.numpy()


def _run(node: ir.Node, inputs: list[Values]) -> Values:
    """Compute one operator (onnx/docs/Operators.md)."""
    first = inputs[0]
    kind = node.op_type
    if kind in ELEMENTWISE:
        if first.dtype == np.float32 and kind.startswith("Bitwise"):  # codes are read as float32
            first = first.astype(np.uint8)
        result: Values = ELEMENTWISE[kind](first, inputs[1])
        return result
    match kind:
        case "Cast":
            target = ir.DataType(node.attributes["to"].as_int())
            if target not in CASTS:
                raise UnsupportedUse(f"{node.name} casts to {target.name}")
            return first.astype(CASTS[target])
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
            slices = [slice(None)] * first.ndim
            for start, end, axis in zip(starts, ends, axes, strict=True):
                slices[axis] = slice(start, end)
            return first[tuple(slices)]
    raise UnsupportedUse(f"{node.name} is a {kind}")
