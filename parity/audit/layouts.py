"""From the nodes that use an initializer to the weight [N, K] that they compute with.

The operator says what the bytes mean: ``MatMul`` multiplies by [K, N], a table's rows are gathered from [V, K], blocks
and zero points are as the operator's attributes and other inputs have them. Whatever the manifest claims is not used.
"""

from collections.abc import Iterator
from pathlib import Path

import onnx_ir as ir

from .embeddings import GatheredTable, Unreadable, gathered
from .stored import HALF_BYTES, Array, BlockWeight, FloatWeight, Matrix

Weight = FloatWeight | BlockWeight | GatheredTable

PASSED_ON = ("Cast", "Transpose")
"""Operators between an initializer and the one that computes with it."""


def weights_of(value: ir.Value, folder: Path) -> list[tuple[ir.Node, Weight]]:
    """Every node that computes with an initializer as its weight, and the weight as the node reads it.

    Raises:
        Unreadable: a use that is none of a weight.
        ArtifactError: an initializer reaches beyond its file.
    """
    array = Array.of(value, folder)
    if array is None:
        raise Unreadable("it has no values")
    return list(_uses(value, array, folder, flipped=False))


def _uses(value: ir.Value, array: Array, folder: Path, *, flipped: bool) -> Iterator[tuple[ir.Node, Weight]]:
    """``flipped``: the array's dimensions are exchanged on the way."""
    for use in value.uses():
        node = use.node
        if node.op_type == "Transpose" and len(array.shape) == 2:
            yield from _uses(node.outputs[0], array, folder, flipped=not flipped)
        elif node.op_type == "DequantizeLinear" and use.idx == 0:
            for user in node.outputs[0].uses():
                yield user.node, _dequantized(node, user.node, user.idx, array, folder, flipped=flipped)
        else:
            yield node, _used(node, use.idx, array, folder, flipped=flipped)


def _used(node: ir.Node, index: int, array: Array, folder: Path, *, flipped: bool) -> Weight:
    kind = node.op_type
    if kind == "MatMulNBits" and index == 1:
        return _nbits(node, array, folder)
    if kind == "GatherBlockQuantized" and index == 0:
        return _gathered_blocks(node, array, folder)
    if kind == "MatMulIntegerToFloat" and index == 1:
        return _integer_product(node, array, folder)
    if kind == "Gather" and index == 0:
        if array.type in (*HALF_BYTES, ir.DataType.UINT8, ir.DataType.INT8):
            return gathered(node, array, folder)
        return FloatWeight(_plain(array))
    if len(array.shape) == 1:
        return FloatWeight(Matrix(array, 1, array.elements, array.elements))
    return FloatWeight(_plain(array, transposed=_down(node, index) != flipped))


def _down(node: ir.Node, index: int) -> bool:
    """Whether an operand [K, N] is multiplied by, rather than [N, K].

    Raises:
        Unreadable: it is no operand of a product.
    """
    if node.op_type == "MatMul" and index == 1:
        return True
    if node.op_type in ("Gemm", "FusedMatMul") and index == 1:
        return not _integer(node, "transB", 0)
    raise Unreadable(f"{node.op_type} takes it as input {index}, which is no way to use a weight")


def _plain(array: Array, *, transposed: bool = False) -> Matrix:
    if len(array.shape) != 2:
        raise Unreadable(f"it has the shape {array.shape}, and a weight has two dimensions")
    first, second = array.shape
    if transposed:
        return Matrix(array, second, first, second, transposed=True)
    return Matrix(array, first, second, second)


def _nbits(node: ir.Node, array: Array, folder: Path) -> BlockWeight:
    """com.microsoft.MatMulNBits: B uint8 [N, KB, block_size * bits / 8], scales [N, KB], zero points [N, KB] of
    ``bits`` each, rows padded to bytes, or of the scales' type."""
    rows, columns = _integer(node, "N"), _integer(node, "K")
    bits, size = _integer(node, "bits", 4), _integer(node, "block_size")
    blocks = -(-columns // size)
    codes = _packed(array, rows, blocks * size, bits)
    scales = _operand(node, 2, folder)
    zeros = _zeros(node, 3, folder, rows, blocks, bits)
    _check(scales, rows * blocks, "scales")
    return BlockWeight(codes, Matrix(scales, rows, blocks, blocks), zeros, 2.0 ** (bits - 1), bits, size, columns)


def _gathered_blocks(node: ir.Node, array: Array, folder: Path) -> BlockWeight:
    """com.microsoft.GatherBlockQuantized: data uint8 [V, ..., bytes] or of four bits, quantized along its last
    dimension, gathered along its first."""
    bits, size = _integer(node, "bits", 4), _integer(node, "block_size", 128)
    axis = _integer(node, "quantize_axis", 1)
    if _integer(node, "gather_axis", 0) != 0 or axis not in (len(array.shape) - 1, -1):
        raise Unreadable("GatherBlockQuantized takes other axes than the first and the last of it")
    rows = array.shape[0]
    per_byte = 8 // bits if array.type == ir.DataType.UINT8 else 1
    columns = array.elements // rows * per_byte
    scales = _operand(node, 2, folder)
    blocks = scales.elements // rows
    _check(scales, rows * -(-columns // size), "scales")
    signed = array.type == ir.DataType.INT4
    zero = 0.0 if array.type in HALF_BYTES else 2.0 ** (bits - 1)
    codes = Matrix(array, rows, columns, columns) if signed else _packed(array, rows, columns, bits)
    zeros = _zeros(node, 3, folder, rows, blocks, bits)
    # Padding behind the last column of the weight is cut off later in the graph.
    width = _cut(node.outputs[0], columns)
    return BlockWeight(codes, Matrix(scales, rows, blocks, blocks), zeros, zero, bits, size, width)


def _cut(value: ir.Value, columns: int) -> int:
    """How many of the gathered columns are used, where a Slice from the first on follows."""
    for user in (use.node for use in value.uses()):
        if user.op_type == "Reshape":
            return _cut(user.outputs[0], columns)
        if user.op_type == "Slice":
            ends = user.inputs[2].const_value if user.inputs[2] is not None else None
            if ends is not None and ends.size == 1:
                return min(columns, int(ends.numpy().item()))
    return columns


def _integer_product(node: ir.Node, array: Array, folder: Path) -> BlockWeight:
    """com.microsoft.MatMulIntegerToFloat: B [K, N], b_scale [N] or one, b_zero_point likewise or none."""
    stored = _plain(array, transposed=True)
    scales = _operand(node, 3, folder)
    _check(scales, stored.rows, "scales")
    zeros = None
    if len(node.inputs) > 5 and node.inputs[5] is not None:
        zeros = Matrix(_operand(node, 5, folder), stored.rows, 1, 1)
    return BlockWeight(stored, Matrix(scales, stored.rows, 1, 1), zeros, 0.0, 8, stored.columns, stored.columns)


def _dequantized(node: ir.Node, user: ir.Node, index: int, array: Array, folder: Path, *, flipped: bool) -> BlockWeight:
    """DequantizeLinear over [K, N] or [N, K], in blocks or with one scale for each of the N."""
    dequantized = (array.shape[1], array.shape[0]) if flipped else array.shape
    if len(dequantized) != 2:
        raise Unreadable(f"it has the shape {array.shape}, and a weight has two dimensions")
    down = _down(user, index)
    columns_axis = 0 if down else 1
    codes = _plain(array, transposed=down != flipped)
    bits = 4 if array.type in HALF_BYTES else 8
    axis, size = _integer(node, "axis", 1) % 2, _integer(node, "block_size", 0)
    if size == 0 and axis != columns_axis:
        size = codes.columns  # a scale for each row
    elif size == 0 or axis != columns_axis:
        raise Unreadable(f"DequantizeLinear has its scales along dimension {axis}, across the inputs of the product")
    blocks = -(-codes.columns // size)

    def operand(place: int) -> Matrix:
        held, turned = _source(node.inputs[place], folder)
        _check(held, codes.rows * blocks, "scales" if place == 1 else "zero points")
        # Of the array's own [KB, N] or [N, KB], after the transpositions on its way.
        if down != turned and len(held.shape) > 1:
            return Matrix(held, codes.rows, blocks, codes.rows, transposed=True)
        return Matrix(held, codes.rows, blocks, blocks)

    zeros = operand(2) if len(node.inputs) > 2 and node.inputs[2] is not None else None
    return BlockWeight(codes, operand(1), zeros, 0.0, bits, size, codes.columns)


def _packed(array: Array, rows: int, columns: int, bits: int) -> Matrix:
    """Codes of 4 or 8 bits in bytes."""
    if bits not in (4, 8):
        raise Unreadable(f"its codes have {bits} bits; 4 and 8 are read")
    if array.bytes != rows * columns * bits // 8:
        raise Unreadable(f"it has {array.bytes:,} bytes, and {rows} rows of {columns} codes in {bits} bits have others")
    return Matrix(array, rows, columns, columns, as_type=ir.DataType.UINT4 if bits == 4 else ir.DataType.UINT8)


def _zeros(node: ir.Node, index: int, folder: Path, rows: int, blocks: int, bits: int) -> Matrix | None:
    """Zero points of ``bits`` each, in bytes by rows; or as many numbers."""
    if len(node.inputs) <= index or node.inputs[index] is None:
        return None
    array = _operand(node, index, folder)
    if array.type != ir.DataType.UINT8:
        return Matrix(array, rows, blocks, blocks)
    pitch = -(-blocks * bits // 8) * 8 // bits
    if array.bytes != rows * pitch * bits // 8:
        raise Unreadable(f"its zero points have {array.bytes:,} bytes, not those of {rows} rows of {blocks} blocks")
    as_type = ir.DataType.UINT4 if bits == 4 else ir.DataType.UINT8
    return Matrix(array, rows, blocks, pitch, as_type=as_type)


def _operand(node: ir.Node, index: int, folder: Path) -> Array:
    return _source(node.inputs[index] if len(node.inputs) > index else None, folder)[0]


def _source(value: ir.Value | None, folder: Path) -> tuple[Array, bool]:
    """The initializer behind Casts and Transposes, and whether its dimensions are exchanged on the way."""
    turned = False
    while value is not None and (node := value.producer()) is not None and node.op_type in PASSED_ON:
        turned ^= node.op_type == "Transpose"
        value = node.inputs[0]
    array = None if value is None else Array.of(value, folder)
    if array is None:
        raise Unreadable("its scales or zero points are no initializers")
    return array, turned


def _check(array: Array, count: int, what: str) -> None:
    if array.elements != count:
        raise Unreadable(f"{array.name} has {array.elements:,} {what}, and its blocks are {count:,}")


def _integer(node: ir.Node, name: str, default: int | None = None) -> int:
    attribute = node.attributes.get(name)
    if attribute is not None:
        return int(attribute.as_int())
    if default is None:
        raise Unreadable(f"{node.op_type} lacks the attribute {name}")
    return default
