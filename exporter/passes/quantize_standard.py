"""Weights in blocks in ai.onnx operators: DequantizeLinear with ``block_size`` (opset 21 and later).

ONNX Runtime multiplies by blocks without a float copy where it finds ``DequantizeLinear([K, N], axis 0) -> MatMul``, of
any of the four element types; it does not where the weight is transposed after it is dequantized, nor in a Gemm. So
projections are stored as [K, N]. A table with a row for each word stays [V, K], of which rows can be gathered: for a
product its codes are transposed before they are dequantized, which ONNX Runtime does once, when it loads the graph.

Rows of a table are gathered as codes and widened with ordinary arithmetic: Gather takes no four-bit types, and ONNX
Runtime would take a DequantizeLinear that meets another one's product for a quantized activation.
"""

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from ..graph import Graph
from ..quantize.formats.recipes import Quantized
from ..quantize.formats.standard import ColumnCodes, ColumnScales, ColumnZeroPoints, FlatCodes, RowCodes, RowZeroPoints
from ..weights import Recipe, Stacked, Stored
from .quantize_ort import CODES, SCALES, ZERO_POINTS, weight_uses

HALF = ir.TensorType(ir.DataType.FLOAT16)
BYTE = ir.TensorType(ir.DataType.UINT8)
TYPES = {
    (4, True): ir.DataType.INT4,
    (4, False): ir.DataType.UINT4,
    (8, True): ir.DataType.INT8,
    (8, False): ir.DataType.UINT8,
}
"""Of the codes, by bits and symmetry."""


def quantize_standard(graph: Graph, choose: Callable[[Stored | Stacked], Quantized | None]) -> int:
    """Replace the multiplications and gathers by weights for which ``choose`` has an answer; returns how many."""
    tables: dict[ir.Value, _Table] = {}
    count = 0
    for node, weight, inner in weight_uses(graph, _weight):
        if weight in tables:
            table = tables[weight]
        else:
            quantized = choose(inner)
            if quantized is None:
                continue
            if node.op_type == "MatMul":
                node.replace_input_with(1, _dequantized(graph, node, weight, quantized))
                count += 1
                continue
            table = tables[weight] = _Table(graph, weight, quantized)
        (table.gather if node.op_type == "Gather" else table.multiply)(node)
        count += 1
    graph.drop_unused_weights()
    return count


def _weight(node: ir.Node) -> ir.Value | None:
    """The operand that may be a weight in blocks: of products the right one, of a gather the table."""
    if node.op_type == "MatMul" or (node.op_type == "Gemm" and len(node.inputs) == 2):
        return node.inputs[1]
    return node.inputs[0] if node.op_type == "Gather" else None


def _dequantized(graph: Graph, node: ir.Node, weight: ir.Value, quantized: Quantized) -> ir.Value:
    """A weight [K, N] that is used once, for ``node``."""
    name = (weight.name or "").removesuffix(".weight")
    columns = (quantized.shape[1], quantized.shape[0])
    codes = graph.add_weight(f"{name}.{CODES}", ColumnCodes(quantized), _type(quantized))
    codes.shape = ir.Shape(columns)
    scales = graph.add_weight(f"{name}.{SCALES}", ColumnScales(quantized), HALF)
    zeros = None
    if not quantized.format.symmetric:
        zeros = graph.add_weight(f"{name}.{ZERO_POINTS}", ColumnZeroPoints(quantized), _type(quantized))
        zeros.shape = scales.shape
    write = _Writer(graph, node)
    assert weight.dtype is not None
    return write.dequantize(codes, write.cast(scales, weight.dtype), zeros, quantized.format.block_size)


def _type(quantized: Quantized) -> ir.TensorType:
    return ir.TensorType(TYPES[quantized.format.bits, quantized.format.symmetric])


class _Table:
    """A weight [V, K] that is gathered from, multiplied by, or both; what both need is stored once."""

    def __init__(self, graph: Graph, weight: ir.Value, quantized: Quantized) -> None:
        self.graph = graph
        self.quantized = quantized
        self.name = (weight.name or "").removesuffix(".weight")
        self.four = quantized.format.bits == 4
        self.codes: ir.Value | None = None
        self.scales: ir.Value | None = None

    def gather(self, node: ir.Node) -> None:
        """Rows [B, S, K]: their codes, less their zeros, times their scales, in float32."""
        output, ids = node.outputs[0], node.inputs[1]
        assert output.dtype is not None
        write = _Writer(self.graph, node)
        self.codes = self._add(CODES, RowCodes(self.quantized), BYTE if self.four else _type(self.quantized))
        self.scales = self._add(SCALES, self.quantized.scales, HALF)
        codes = write("Gather", self.codes, ids)
        values = write.cast(self._halves(write, codes) if self.four else codes, ir.DataType.FLOAT)
        if not self.quantized.format.symmetric:
            points = self._add(ZERO_POINTS, RowZeroPoints(self.quantized), BYTE)
            zeros = write.cast(write("Gather", points, ids), ir.DataType.FLOAT)
            values = write("Sub", values, self._spread(write, zeros))
        elif self.four:
            values = write("Sub", values, write.graph.constant(np.float32(self.quantized.format.middle)))
        scales = write.cast(write("Gather", self.scales, ids), ir.DataType.FLOAT)
        rows = write("Mul", values, self._spread(write, scales))
        self.graph.replace_output(output, write.cast(rows, output.dtype))
        self.graph.model.graph.remove(node, safe=True)

    def _halves(self, write: "_Writer", packed: ir.Value) -> ir.Value:
        """Bytes [B, S, ceil(K / 2)] as codes from 0 to 15 [B, S, K]."""
        if self.quantized.format.symmetric:
            packed = write("BitwiseXor", packed, write.graph.constant(np.uint8(0x88)))  # as if they were unsigned
        columns = self.quantized.shape[1]
        each = write("Unsqueeze", packed, write.ints(-1))
        halves = write("BitShift", each, write.graph.constant(np.array([0, 4], np.uint8)), direction="RIGHT")
        codes = write("BitwiseAnd", halves, write.graph.constant(np.uint8(15)))
        return write.rows(codes, columns + columns % 2, columns)

    def _spread(self, write: "_Writer", values: ir.Value) -> ir.Value:
        """[B, S, KB] as [B, S, K], each value for its block."""
        size = self.quantized.format.block_size
        wide = write("Expand", write("Unsqueeze", values, write.ints(-1)), write.ints(1, 1, 1, size))
        return write.rows(wide, self.quantized.blocks * size, self.quantized.shape[1])

    def multiply(self, node: ir.Node) -> None:
        """Gemm with the table transposed."""
        output = node.outputs[0]
        assert output.dtype is not None
        write = _Writer(self.graph, node)
        codes = write("Transpose", self._product_codes(), perm=[1, 0])
        scales = self.scales or self._add(SCALES, self.quantized.scales, HALF)
        scales = write("Transpose", write.cast(scales, output.dtype), perm=[1, 0])
        zeros = None
        if not self.quantized.format.symmetric:
            zeros = self._add(f"{ZERO_POINTS}.columns", ColumnZeroPoints(self.quantized), _type(self.quantized))
            zeros.shape = ir.Shape((self.quantized.blocks, self.quantized.shape[0]))
        weight = write.dequantize(codes, scales, zeros, self.quantized.format.block_size)
        self.graph.replace_output(output, write("MatMul", node.inputs[0], weight))
        self.graph.model.graph.remove(node, safe=True)

    def _product_codes(self) -> ir.Value:
        """[V, K], in the bytes of the gathered rows where these are its bytes too."""
        type = _type(self.quantized)
        if not self.four:
            return self.codes or self._add(CODES, RowCodes(self.quantized), type)
        if self.codes is None or self.quantized.shape[1] % 2:
            codes = self._add(CODES if self.codes is None else f"{CODES}.pairs", FlatCodes(self.quantized), type)
        else:
            codes = self.graph.alias(self.codes, f"{self.name}.{CODES}.pairs", self.quantized.shape)
        codes.type, codes.shape = type, ir.Shape(self.quantized.shape)
        return codes

    def _add(self, suffix: str, recipe: Recipe, type: ir.TensorType) -> ir.Value:
        return self.graph.add_weight(f"{self.name}.{suffix}", recipe, type)


class _Writer:
    """Writes nodes before another one, with its module path."""

    def __init__(self, graph: Graph, before: ir.Node) -> None:
        self.graph = graph
        self.before = before

    def __call__(self, op: str, *inputs: ir.Value | None, **attributes: int | str | list[int]) -> ir.Value:
        """A node with one output, of the first input's element type until something else is said."""
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
        """[K, N] in blocks along K."""
        inputs = (codes, scales) if zeros is None else (codes, scales, zeros)
        found = self("DequantizeLinear", *inputs, axis=0, block_size=block_size)
        found.type = scales.type
        return found

    def rows(self, value: ir.Value, width: int, columns: int) -> ir.Value:
        """The last two dimensions as one, [B, S, width], and of that the first columns."""
        flat = self("Reshape", value, self.ints(0, 0, width))
        return flat if width == columns else self("Slice", flat, self.ints(0), self.ints(columns), self.ints(-1))

    def ints(self, *values: int) -> ir.Value:
        return self.graph.constant(np.array(values))
