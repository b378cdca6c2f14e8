"""The weight [N, K] that a node computes with, from the initializers that it reads.

The operator says what the bytes mean: ``MatMul`` multiplies by [K, N], an embedding's rows are gathered from [V, K],
and the operator's attributes and other inputs give the blocks and zero points. The manifest is not used.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import onnx_ir as ir

from ....contract import JOIN_BITS
from .embeddings import QuantizedEmbedding, UnsupportedUse, quantized_embedding
from .five_bits import as_five_bits, joined
from .operands import (
    added_offsets,
    attribute,
    check_count,
    gathered_order,
    initializer,
    looked_up_offsets,
    operand,
    spread_order,
    within_module,
)
from .stored import FOUR_BITS, AlternatingView, BlockWeight, FloatWeight, MatrixView, StoredArray

Weight = FloatWeight | BlockWeight | QuantizedEmbedding


def weights_of(value: ir.Value, folder: Path) -> list[tuple[ir.Node, Weight]]:
    """Return each node that uses an initializer as its weight, with the weight as that node reads it.

    Raises:
        UnsupportedUse: a node uses it in a way that is not known here.
        ArtifactError: an initializer extends beyond the end of its file.
    """
    array = StoredArray.of(value, folder)
    if array is None:
        raise UnsupportedUse("it has no values")
    return list(_uses(value, array, folder, transposed=False))


def _uses(value: ir.Value, array: StoredArray, folder: Path, *, transposed: bool) -> Iterator[tuple[ir.Node, Weight]]:
    """Yield the users of a value that is the array, or the ``transposed`` array."""
    for use in value.uses():
        node = use.node
        if node.op_type == "Transpose" and len(array.shape) == 2:
            yield from _uses(node.outputs[0], array, folder, transposed=not transposed)
        elif node.op_type == "DequantizeLinear" and use.idx == 0:
            for user in node.outputs[0].uses():
                yield user.node, _dequantize_linear(node, user.node, user.idx, array, folder, transposed=transposed)
        elif (node.domain, node.op_type) == JOIN_BITS and use.idx == 0:
            codes = joined(node, array, folder)
            for user in node.outputs[0].uses():
                yield user.node, as_five_bits(_weight_of_use(user.node, user.idx, codes, folder, transposed=transposed))
        else:
            yield node, _weight_of_use(node, use.idx, array, folder, transposed=transposed)


def _weight_of_use(node: ir.Node, index: int, array: StoredArray, folder: Path, *, transposed: bool) -> Weight:
    kind = node.op_type
    if kind == "MatMulNBits" and index == 1:
        return _matmul_nbits(node, array, folder)
    if kind == "GatherBlockQuantized" and index == 0:
        return _gather_block_quantized(node, array, folder)
    if kind == "MatMulIntegerToFloat" and index == 1:
        return _matmul_integer_to_float(node, array, folder)
    if kind == "MoE" and index in (2, 4):
        return FloatWeight(_experts_view(_experts(array), alternate=index == 2))
    if kind == "QMoE" and index in (2, 5):
        return _qmoe(node, index, array, folder)
    if kind == "Gather" and index == 0:
        if array.type in (*FOUR_BITS, ir.DataType.UINT8, ir.DataType.INT8):
            return _embedding_by_arithmetic(node, array, folder)
        return FloatWeight(_matrix(array))
    if len(array.shape) == 1:
        return FloatWeight(MatrixView(array, 1, array.elements, array.elements))
    return FloatWeight(_matrix(array, transposed=_takes_kn(node, index) != transposed))


def _takes_kn(node: ir.Node, index: int) -> bool:
    """Return true if the operator multiplies by [K, N], and false if by [N, K].

    Raises:
        UnsupportedUse: it is not a matrix multiplication.
    """
    if node.op_type == "MatMul" and index == 1:
        return True
    if node.op_type in ("Gemm", "FusedMatMul") and index == 1:
        return not attribute(node, "transB", 0)
    raise UnsupportedUse(f"{node.op_type} takes it as input {index}, and a weight is not used so")


def _matrix(array: StoredArray, *, transposed: bool = False) -> MatrixView:
    if len(array.shape) != 2:
        raise UnsupportedUse(f"it has the shape {array.shape}, and a weight has two dimensions")
    first, second = array.shape
    if transposed:
        return MatrixView(array, second, first, second, transposed=True)
    return MatrixView(array, first, second, second)


def _matmul_nbits(node: ir.Node, array: StoredArray, folder: Path) -> BlockWeight:
    """Read com.microsoft.MatMulNBits.

    B is uint8 [N, KB, block_size * bits / 8], scales are [N, KB]; zero points are [N, KB], of ``bits`` each with rows
    padded to bytes, or of the scales' type.
    """
    rows, columns = attribute(node, "N"), attribute(node, "K")
    bits, size = attribute(node, "bits", 4), attribute(node, "block_size")
    blocks = -(-columns // size)
    codes = _packed(array, rows, blocks * size, bits)
    scales = operand(node, 2, folder)
    zero_points = _zero_points(node, 3, folder, rows, blocks, bits)
    check_count(scales, rows * blocks, "scales")
    scale_matrix = MatrixView(scales, rows, blocks, blocks)
    order = gathered_order(node.inputs[0], columns)
    offsets = added_offsets(node.outputs[0], node.inputs[0], rows, blocks, folder)
    middle = 2.0 ** (bits - 1)
    return BlockWeight(codes, scale_matrix, zero_points, middle, bits, size, columns, offsets, order)


def _experts(array: StoredArray) -> MatrixView:
    """Return the weights [X, N, K] of experts as one matrix [X * N, K]."""
    if len(array.shape) != 3:
        raise UnsupportedUse(f"it has the shape {array.shape}, and the weights of experts have three dimensions")
    experts, rows, columns = array.shape
    return MatrixView(array, experts * rows, columns, columns)


def _experts_view(view: MatrixView, *, alternate: bool) -> MatrixView:
    """Return the rows of gate and up, which alternate, as those of gate and then those of up, for each expert."""
    if not alternate:
        return view
    run = view.array.shape[1] // 2
    return AlternatingView(view.array, view.rows, view.columns, view.stride, as_type=view.as_type, run=run)


def _qmoe(node: ir.Node, index: int, array: StoredArray, folder: Path) -> BlockWeight:
    """Read com.microsoft.QMoE: codes [X, N, K * bits / 8], scales [X, N, KB], zero points [X, N, bytes of KB]."""
    bits, size = attribute(node, "expert_weight_bits", 4), attribute(node, "block_size")
    stored = _experts(array)
    rows, columns = stored.rows, stored.columns * 8 // bits
    blocks = -(-columns // size)
    scales = operand(node, index + 1, folder)
    check_count(scales, rows * blocks, "scales")
    zero_points = _zero_points(node, 11 if index == 2 else 12, folder, rows, blocks, bits)
    views = (_packed(array, rows, columns, bits), MatrixView(scales, rows, blocks, blocks), zero_points)
    codes, scale_view, points = (None if view is None else _experts_view(view, alternate=index == 2) for view in views)
    assert codes is not None
    assert scale_view is not None
    return BlockWeight(codes, scale_view, points, 2.0 ** (bits - 1), bits, size, columns)


def _gather_block_quantized(node: ir.Node, array: StoredArray, folder: Path) -> BlockWeight:
    """Read com.microsoft.GatherBlockQuantized.

    Data is uint8 [V, ..., bytes] or has 4-bit elements; it is quantized along its last dimension and gathered along
    its first.
    """
    bits, size = attribute(node, "bits", 4), attribute(node, "block_size", 128)
    axis = attribute(node, "quantize_axis", 1)
    if attribute(node, "gather_axis", 0) != 0 or axis not in (len(array.shape) - 1, -1):
        raise UnsupportedUse("GatherBlockQuantized has other axes than the first and the last of it")
    rows = array.shape[0]
    per_byte = 8 // bits if array.type == ir.DataType.UINT8 else 1
    columns = array.elements // rows * per_byte
    scales = operand(node, 2, folder)
    blocks = scales.elements // rows
    check_count(scales, rows * -(-columns // size), "scales")
    signed = array.type == ir.DataType.INT4
    zero_point = 0.0 if array.type in FOUR_BITS else 2.0 ** (bits - 1)
    codes = MatrixView(array, rows, columns, columns) if signed else _packed(array, rows, columns, bits)
    zero_points = _zero_points(node, 3, folder, rows, blocks, bits)
    # The graph slices off the padding after the weight's last column.
    width = _sliced_width(node.outputs[0], columns)
    scale_matrix = MatrixView(scales, rows, blocks, blocks)
    order = spread_order(node.outputs[0], width)
    offsets = looked_up_offsets(node.outputs[0], node.inputs[1], rows, blocks, folder)
    return BlockWeight(codes, scale_matrix, zero_points, zero_point, bits, size, width, offsets, order)


def _embedding_by_arithmetic(node: ir.Node, array: StoredArray, folder: Path) -> QuantizedEmbedding:
    """Read an embedding whose codes are looked up and dequantized by operators of ai.onnx."""
    found = quantized_embedding(node, array, folder)
    rows = found.product.outputs[0]
    added = next((after for after in within_module(rows) if after.op_type == "Add"), None)
    offsets = None if added is None else next((one for one in added.inputs if one is not rows), None)
    return replace(found, offsets=offsets, order=spread_order(rows, found.shape[1]))


def _sliced_width(value: ir.Value, columns: int) -> int:
    """Return how many of the gathered columns are used, where a Slice from the first one follows."""
    for node in within_module(value):
        if node.op_type == "Slice":
            ends = node.inputs[2].const_value if node.inputs[2] is not None else None
            if ends is not None and ends.size == 1:
                return min(columns, int(ends.numpy().item()))
    return columns


def _matmul_integer_to_float(node: ir.Node, array: StoredArray, folder: Path) -> BlockWeight:
    """Read com.microsoft.MatMulIntegerToFloat: B [K, N], b_scale [N] or one, b_zero_point like it or absent."""
    stored = _matrix(array, transposed=True)
    scales = operand(node, 3, folder)
    check_count(scales, stored.rows, "scales")
    zero_points = None
    if len(node.inputs) > 5 and node.inputs[5] is not None:
        zero_points = MatrixView(operand(node, 5, folder), stored.rows, 1, 1)
    scale_matrix = MatrixView(scales, stored.rows, 1, 1)
    order = gathered_order(node.inputs[0], stored.columns)
    return BlockWeight(stored, scale_matrix, zero_points, 0.0, 8, stored.columns, stored.columns, None, order)


def _dequantize_linear(
    node: ir.Node, user: ir.Node, index: int, array: StoredArray, folder: Path, *, transposed: bool
) -> BlockWeight:
    """Read DequantizeLinear over [K, N] or [N, K], in blocks or with one scale for each of the N."""
    shape = (array.shape[1], array.shape[0]) if transposed else array.shape
    if len(shape) != 2:
        raise UnsupportedUse(f"it has the shape {array.shape}, and a weight has two dimensions")
    takes_kn = _takes_kn(user, index)
    columns_axis = 0 if takes_kn else 1
    codes = _matrix(array, transposed=takes_kn != transposed)
    bits = 4 if array.type in FOUR_BITS else 8
    axis, size = attribute(node, "axis", 1) % 2, attribute(node, "block_size", 0)
    if size == 0 and axis != columns_axis:
        size = codes.columns  # one scale for each row
    elif size == 0 or axis != columns_axis:
        raise UnsupportedUse(f"DequantizeLinear has its scales along dimension {axis}, which is not that of K")
    blocks = -(-codes.columns // size)

    def by_block(position: int) -> MatrixView:
        stored, is_transposed = initializer(node.inputs[position], folder)
        check_count(stored, codes.rows * blocks, "scales" if position == 1 else "zero points")
        # The array is [KB, N] or [N, KB], before the transpositions that follow it.
        if takes_kn != is_transposed and len(stored.shape) > 1:
            return MatrixView(stored, codes.rows, blocks, codes.rows, transposed=True)
        return MatrixView(stored, codes.rows, blocks, blocks)

    zero_points = by_block(2) if len(node.inputs) > 2 and node.inputs[2] is not None else None
    order = gathered_order(user.inputs[0], codes.columns)
    offsets = added_offsets(user.outputs[0], user.inputs[0], codes.rows, blocks, folder)
    return BlockWeight(codes, by_block(1), zero_points, 0.0, bits, size, codes.columns, offsets, order)


def _packed(array: StoredArray, rows: int, columns: int, bits: int) -> MatrixView:
    """Return codes of 4 or 8 bits that are stored as bytes."""
    if bits not in (4, 8):
        raise UnsupportedUse(f"its codes have {bits} bits; 4 and 8 are supported")
    if array.bytes != rows * columns * bits // 8:
        raise UnsupportedUse(
            f"it has {array.bytes:,} bytes, and {rows} rows of {columns} codes of {bits} bits have "
            f"{rows * columns * bits // 8:,}"
        )
    return MatrixView(array, rows, columns, columns, as_type=ir.DataType.UINT4 if bits == 4 else ir.DataType.UINT8)


def _zero_points(node: ir.Node, index: int, folder: Path, rows: int, blocks: int, bits: int) -> MatrixView | None:
    """Return zero points of ``bits`` each, packed into the bytes of each row, or as numbers."""
    if len(node.inputs) <= index or node.inputs[index] is None:
        return None
    array = operand(node, index, folder)
    if array.type != ir.DataType.UINT8:
        return MatrixView(array, rows, blocks, blocks)
    stride = -(-blocks * bits // 8) * 8 // bits
    if array.bytes != rows * stride * bits // 8:
        raise UnsupportedUse(
            f"its zero points have {array.bytes:,} bytes, and those of {rows} rows of {blocks} blocks have "
            f"{rows * stride * bits // 8:,}"
        )
    as_type = ir.DataType.UINT4 if bits == 4 else ir.DataType.UINT8
    return MatrixView(array, rows, blocks, stride, as_type=as_type)
