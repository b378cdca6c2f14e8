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
from .stored_inputs import StoredInputs, add_offset_rows, add_offsets, offset_type, scale_type
from .writer import Writer

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
    inputs = StoredInputs(graph)
    count = 0
    for node, weight, inner in weight_uses(graph, "Gemm"):
        if weight not in known:
            rows = choose(inner)
            if rows is None:
                continue
            if node.op_type == "MatMul":
                _multiply(graph, node, weight, ColumnWeight(rows), inputs)
                count += 1
                continue
            known[weight] = _VocabularyWeight(graph, weight, rows, inputs)
        (known[weight].look_up if node.op_type == "Gather" else known[weight].multiply)(node)
        count += 1
    graph.drop_unused_weights()
    return count


def _multiply(
    graph: ExportGraph, node: ir.Node, weight: ir.Value, quantized: ColumnWeight, inputs: StoredInputs
) -> None:
    """Dequantize the weight [K, N] of one multiplication; a new one takes activations in another order, or offsets."""
    name, scheme = (weight.name or "").removesuffix(".weight"), quantized.source.scheme
    dequantized = _dequantized(graph, node, weight, quantized)
    if scheme.order is None and scheme.offset_type is None:
        node.replace_input_with(1, dequantized)
        return
    write, x, output = Writer(graph, node), node.inputs[0], node.outputs[0]
    assert x is not None
    assert output.dtype is not None
    x = inputs.sorted(write, x, scheme.order, name)
    found = write("MatMul", x, dequantized)
    if scheme.offset_type is not None:
        offsets = write.cast(add_offsets(graph, name, quantized, offset_type(scheme, output.dtype)), output.dtype)
        found = write("Add", found, inputs.offset_product(write, x, quantized, offsets))
    graph.replace_output(output, found)
    graph.model.graph.remove(node, safe=True)


def _dequantized(graph: ExportGraph, node: ir.Node, weight: ir.Value, quantized: ColumnWeight) -> ir.Value:
    """Return the weight [K, N] of one multiplication."""
    name, format = (weight.name or "").removesuffix(".weight"), quantized.format
    codes = graph.add_weight(f"{name}.{CODES}", quantized.codes, _type(format))
    codes.shape = ir.Shape(quantized.shape[::-1])
    assert weight.dtype is not None
    scales = graph.add_weight(f"{name}.{SCALES}", quantized.scales, scale_type(quantized.source.scheme, weight.dtype))
    zeros = None
    if not format.symmetric:
        zeros = graph.add_weight(f"{name}.{ZERO_POINTS}", quantized.zero_points, _type(format))
        zeros.shape = scales.shape
    write = Writer(graph, node)
    return write.dequantize(codes, write.cast(scales, weight.dtype), zeros, format.block_size)


def _type(format: BlockFormat) -> ir.TensorType:
    return ir.TensorType(TYPES[format.bits, format.symmetric])


class _VocabularyWeight:
    """An embedding, an LM head, or both in one [V, K]; what both uses need is stored once."""

    def __init__(self, graph: ExportGraph, weight: ir.Value, rows: RowSource, inputs: StoredInputs) -> None:
        self.graph = graph
        self.rows = rows
        self.inputs = inputs
        self.scheme = rows.scheme
        self.format = rows.scheme.format
        self.name = (weight.name or "").removesuffix(".weight")
        self.four = self.format.bits == 4
        self.weight: RowWeight | None = None
        self.codes: ir.Value | None = None
        self.scales: ir.Value | None = None
        self.offsets: ir.Value | None = None

    def look_up(self, node: ir.Node) -> None:
        """Compute rows [B, S, K]: their codes, less their zeros, times their scales, in float32."""
        output, ids = node.outputs[0], node.inputs[1]
        assert output.dtype is not None
        write = Writer(self.graph, node)
        self.weight = RowWeight(self.rows)
        self.codes = self._add(CODES, self.weight.codes, BYTE if self.four else _type(self.format))
        self.scales = self._add(SCALES, self.weight.scales, scale_type(self.scheme, ir.DataType.FLOAT))
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
        if self.scheme.offset_type is not None:
            type = offset_type(self.scheme, ir.DataType.FLOAT)
            self.offsets = add_offset_rows(self.graph, self.name, self.weight, type)
            offsets = write.cast(write("Gather", self.offsets, ids), ir.DataType.FLOAT)
            rows = write("Add", rows, self._spread(write, offsets))
        rows = self.inputs.unsorted(write, rows, self.scheme.order, self.name)
        self.graph.replace_output(output, write.cast(rows, output.dtype))
        self.graph.model.graph.remove(node, safe=True)

    def _halves(self, write: Writer, packed: ir.Value) -> ir.Value:
        """Unpack bytes [B, S, ceil(K / 2)] to codes from 0 to 15, [B, S, K]."""
        if self.format.symmetric:
            packed = write("BitwiseXor", packed, write.graph.constant(np.uint8(0x88)))  # as if they were unsigned
        columns = self.rows.inner.shape[1]
        each = write("Unsqueeze", packed, write.ints(-1))
        # Masked before it is shifted: OpenVINO divides and rounds where ONNX shifts.
        halves = write("BitwiseAnd", each, write.graph.constant(np.array([15, 240], np.uint8)))
        codes = write("BitShift", halves, write.graph.constant(np.array([0, 4], np.uint8)), direction="RIGHT")
        return write.rows(codes, columns + columns % 2, columns)

    def _spread(self, write: Writer, values: ir.Value) -> ir.Value:
        """Repeat [B, S, KB] to [B, S, K], each value for its block."""
        size, columns = self.format.block_size, self.rows.inner.shape[1]
        wide = write("Expand", write("Unsqueeze", values, write.ints(-1)), write.ints(1, 1, 1, size))
        return write.rows(wide, self.format.blocks(columns) * size, columns)

    def multiply(self, node: ir.Node) -> None:
        """Replace a Gemm with the weight transposed."""
        output = node.outputs[0]
        assert output.dtype is not None
        write = Writer(self.graph, node)
        weight = self.weight or (FlatWeight(self.rows) if self.four else RowWeight(self.rows))
        codes = write("Transpose", self._multiplied_codes(weight), perm=[1, 0])
        scales = self.scales or self._add(SCALES, weight.scales, scale_type(self.scheme, output.dtype))
        scales = write("Transpose", write.cast(scales, output.dtype), perm=[1, 0])
        zeros = None
        if not self.format.symmetric:
            zeros = self._add(f"{ZERO_POINTS}.columns", weight.zero_point_columns, _type(self.format))
            zeros.shape = ir.Shape((weight.blocks, weight.shape[0]))
        dequantized = write.dequantize(codes, scales, zeros, self.format.block_size)
        x = node.inputs[0]
        assert x is not None
        x = self.inputs.sorted(write, x, self.scheme.order, self.name)
        found = write("MatMul", x, dequantized)
        if self.scheme.offset_type is not None:
            found = write(
                "Add", found, self.inputs.offset_product(write, x, weight, self._offset_columns(write, weight), rank=2)
            )
        self.graph.replace_output(output, found)
        self.graph.model.graph.remove(node, safe=True)

    def _offset_columns(self, write: Writer, weight: RowWeight) -> ir.Value:
        """Return the offsets [KB, V]; those of the lookup where there are any."""
        output = write.before.outputs[0].dtype
        assert output is not None
        if self.offsets is None:
            return write.cast(add_offsets(self.graph, self.name, weight, offset_type(self.scheme, output)), output)
        return write("Transpose", write.cast(self.offsets, output), perm=[1, 0])

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
