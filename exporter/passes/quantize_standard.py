"""Weights in blocks in ai.onnx operators: DequantizeLinear with ``block_size`` (opset 21 and later).

ONNX Runtime multiplies by blocks without a float copy where it finds ``DequantizeLinear([K, N], axis 0) -> MatMul``, of
any of the four element types; it does not where the weight is transposed after it is dequantized, nor in a Gemm. So
projections are stored as [K, N]. An embedding or LM head stays [V, K], so that rows can be looked up: for a
multiplication its codes are transposed before they are dequantized, which ONNX Runtime does once, at load.

Rows of an embedding are looked up as codes and widened with ordinary arithmetic: Gather takes no four-bit types, and
ONNX Runtime would take a DequantizeLinear before a multiplication by another one for a quantized activation.
"""

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from ..graph import ExportGraph
from ..quantize.formats.blocks import BlockFormat
from ..quantize.formats.standard import ColumnWeight, FlatWeight, RowWeight
from ..quantize.formats.weight import CODES, SCALES, ZERO_POINTS, RowSource
from ..weights import Stacked, Stored, Stream
from .quantize_ort import weight_uses

HALF = ir.TensorType(ir.DataType.FLOAT16)
BYTE = ir.TensorType(ir.DataType.UINT8)
TYPES = {
    (4, True): ir.DataType.INT4,
    (4, False): ir.DataType.UINT4,
    (8, True): ir.DataType.INT8,
    (8, False): ir.DataType.UINT8,
}
"""The element types of the codes, by bits and symmetry."""


def quantize_standard(graph: ExportGraph, choose: Callable[[Stored | Stacked], RowSource | None]) -> int:
    """Replace the multiplications and lookups of weights for which ``choose`` returns rows; return how many."""
    known: dict[ir.Value, _VocabularyWeight] = {}
    count = 0
    for node, weight, inner in weight_uses(graph, "Gemm"):
        if weight not in known:
            rows = choose(inner)
            if rows is None:
                continue
            if node.op_type == "MatMul":
                node.replace_input_with(1, _dequantized(graph, node, weight, ColumnWeight(rows)))
                count += 1
                continue
            known[weight] = _VocabularyWeight(graph, weight, rows)
        (known[weight].look_up if node.op_type == "Gather" else known[weight].multiply)(node)
        count += 1
    graph.drop_unused_weights()
    return count


def _dequantized(graph: ExportGraph, node: ir.Node, weight: ir.Value, quantized: ColumnWeight) -> ir.Value:
    """Return the weight [K, N] of one multiplication."""
    name, format = (weight.name or "").removesuffix(".weight"), quantized.format
    codes = graph.add_weight(f"{name}.{CODES}", quantized.codes, _type(format))
    codes.shape = ir.Shape(quantized.shape[::-1])
    scales = graph.add_weight(f"{name}.{SCALES}", quantized.scales, HALF)
    zeros = None
    if not format.symmetric:
        zeros = graph.add_weight(f"{name}.{ZERO_POINTS}", quantized.zero_points, _type(format))
        zeros.shape = scales.shape
    write = _Writer(graph, node)
    assert weight.dtype is not None
    return write.dequantize(codes, write.cast(scales, weight.dtype), zeros, format.block_size)


def _type(format: BlockFormat) -> ir.TensorType:
    return ir.TensorType(TYPES[format.bits, format.symmetric])


class _VocabularyWeight:
    """An embedding, an LM head, or both in one [V, K]; what both uses need is stored once."""

    def __init__(self, graph: ExportGraph, weight: ir.Value, rows: RowSource) -> None:
        self.graph = graph
        self.rows = rows
        self.format = rows.scheme.format
        self.name = (weight.name or "").removesuffix(".weight")
        self.four = self.format.bits == 4
        self.weight: RowWeight | None = None
        self.codes: ir.Value | None = None
        self.scales: ir.Value | None = None

    def look_up(self, node: ir.Node) -> None:
        """Compute rows [B, S, K]: their codes, less their zeros, times their scales, in float32."""
        output, ids = node.outputs[0], node.inputs[1]
        assert output.dtype is not None
        write = _Writer(self.graph, node)
        self.weight = RowWeight(self.rows)
        self.codes = self._add(CODES, self.weight.codes, BYTE if self.four else _type(self.format))
        self.scales = self._add(SCALES, self.weight.scales, HALF)
        codes = write("Gather", self.codes, ids)
        values = write.cast(self._halves(write, codes) if self.four else codes, ir.DataType.FLOAT)
        if not self.format.symmetric:
            points = self._add(ZERO_POINTS, self.weight.zero_points, BYTE)
            zeros = write.cast(write("Gather", points, ids), ir.DataType.FLOAT)
            values = write("Sub", values, self._spread(write, zeros))
        elif self.four:
            values = write("Sub", values, write.graph.constant(np.float32(self.format.middle)))
        scales = write.cast(write("Gather", self.scales, ids), ir.DataType.FLOAT)
        rows = write("Mul", values, self._spread(write, scales))
        self.graph.replace_output(output, write.cast(rows, output.dtype))
        self.graph.model.graph.remove(node, safe=True)

    def _halves(self, write: "_Writer", packed: ir.Value) -> ir.Value:
        """Unpack bytes [B, S, ceil(K / 2)] to codes from 0 to 15, [B, S, K]."""
        if self.format.symmetric:
            packed = write("BitwiseXor", packed, write.graph.constant(np.uint8(0x88)))  # as if they were unsigned
        columns = self.rows.inner.shape[1]
        each = write("Unsqueeze", packed, write.ints(-1))
        # Masked before it is shifted: OpenVINO divides and rounds where ONNX shifts.
        halves = write("BitwiseAnd", each, write.graph.constant(np.array([15, 240], np.uint8)))
        codes = write("BitShift", halves, write.graph.constant(np.array([0, 4], np.uint8)), direction="RIGHT")
        return write.rows(codes, columns + columns % 2, columns)

    def _spread(self, write: "_Writer", values: ir.Value) -> ir.Value:
        """Repeat [B, S, KB] to [B, S, K], each value for its block."""
        size, columns = self.format.block_size, self.rows.inner.shape[1]
        wide = write("Expand", write("Unsqueeze", values, write.ints(-1)), write.ints(1, 1, 1, size))
        return write.rows(wide, self.format.blocks(columns) * size, columns)

    def multiply(self, node: ir.Node) -> None:
        """Replace a Gemm with the weight transposed."""
        output = node.outputs[0]
        assert output.dtype is not None
        write = _Writer(self.graph, node)
        weight = self.weight or (FlatWeight(self.rows) if self.four else RowWeight(self.rows))
        codes = write("Transpose", self._multiplied_codes(weight), perm=[1, 0])
        scales = self.scales or self._add(SCALES, weight.scales, HALF)
        scales = write("Transpose", write.cast(scales, output.dtype), perm=[1, 0])
        zeros = None
        if not self.format.symmetric:
            zeros = self._add(f"{ZERO_POINTS}.columns", weight.zero_point_columns, _type(self.format))
            zeros.shape = ir.Shape((weight.blocks, weight.shape[0]))
        dequantized = write.dequantize(codes, scales, zeros, self.format.block_size)
        self.graph.replace_output(output, write("MatMul", node.inputs[0], dequantized))
        self.graph.model.graph.remove(node, safe=True)

    def _multiplied_codes(self, weight: RowWeight) -> ir.Value:
        """Return the codes [V, K]; they are those of the lookup where the bytes are the same."""
        type = _type(self.format)
        if not self.four:
            return self.codes or self._add(CODES, weight.codes, type)
        if self.codes is None:
            codes = self._add(CODES, weight.codes, type)
        elif weight.shape[1] % 2:
            codes = self._add(f"{CODES}.pairs", FlatWeight(self.rows).codes, type)
        else:
            codes = self.graph.alias(self.codes, f"{self.name}.{CODES}.pairs", weight.shape)
        codes.type, codes.shape = type, ir.Shape(weight.shape)
        return codes

    def _add(self, suffix: str, stream: Stream, type: ir.TensorType) -> ir.Value:
        return self.graph.add_weight(f"{self.name}.{suffix}", stream, type)


class _Writer:
    """Inserts nodes before another one, with its module path."""

    def __init__(self, graph: ExportGraph, before: ir.Node) -> None:
        self.graph = graph
        self.before = before

    def __call__(self, op: str, *inputs: ir.Value | None, **attributes: int | str | list[int]) -> ir.Value:
        """Insert a node with one output, of the first input's element type unless the caller sets another."""
        listed = [ir.convenience.convert_attribute(name, value) for name, value in attributes.items()]
        props = dict(self.before.metadata_props)
        node = ir.Node("", op, inputs, attributes=[a for a in listed if isinstance(a, ir.Attr)], metadata_props=props)
        node.outputs[0].type = inputs[0].type if inputs[0] is not None else None
        self.graph.model.graph.insert_before(self.before, node)
        return node.outputs[0]

    def cast(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        if value.dtype == dtype:
            return value
        found = self("Cast", value, to=int(dtype))
        found.type = ir.TensorType(dtype)
        return found

    def dequantize(self, codes: ir.Value, scales: ir.Value, zeros: ir.Value | None, block_size: int) -> ir.Value:
        """Dequantize [K, N] in blocks along K."""
        inputs = (codes, scales) if zeros is None else (codes, scales, zeros)
        found = self("DequantizeLinear", *inputs, axis=0, block_size=block_size)
        found.type = scales.type
        return found

    def rows(self, value: ir.Value, width: int, columns: int) -> ir.Value:
        """Join the last two dimensions to [B, S, width], and return the first columns."""
        flat = self("Reshape", value, self.ints(0, 0, width))
        return flat if width == columns else self("Slice", flat, self.ints(0), self.ints(columns), self.ints(-1))

    def ints(self, *values: int) -> ir.Value:
        return self.graph.constant(np.array(values))
