"""What a multiplication by a weight that the checkpoint stores quantized needs beside the weight's codes.

Columns that are stored in another order meet activations in the same order: a Gather, one for all weights of one input
and one order. (MatMulNBits has an input for that, g_idx, with which ONNX Runtime 1.32 computes wrong results on a CPU.)
Offsets of blocks are multiplied by the sums of the activations of each block, and the product is added.
"""

import onnx_ir as ir
import torch

from ..graph import ExportGraph
from ..quantize.formats.scheme import ColumnOrder, Scheme
from ..quantize.formats.weight import OFFSETS, QuantizedWeight
from ..weights import Computed
from .writer import Writer

ORDER, INVERSE_ORDER = "order", "inverse_order"
"""The ends of the names of orders, int64 [K], in the graph."""


class StoredInputs:
    """The orders and block sums of a graph's activations, each computed once."""

    def __init__(self, graph: ExportGraph) -> None:
        self.graph = graph
        self._orders: dict[tuple[int, bytes], ir.Value] = {}
        self._sums: dict[tuple[int, int], ir.Value] = {}

    def sorted(self, write: Writer, x: ir.Value, order: ColumnOrder | None, name: str) -> ir.Value:
        """Return activations [B, S, K] in an order of columns, which is stored under the name of a weight."""
        if order is None:
            return x
        key = (id(x), order.data)
        if key not in self._orders:
            self._orders[key] = write("Gather", x, self._add(f"{name}.{ORDER}", order.columns), axis=-1)
        return self._orders[key]

    def unsorted(self, write: Writer, rows: ir.Value, order: ColumnOrder | None, name: str) -> ir.Value:
        """Return rows [B, S, K] of an embedding in the order of its columns."""
        if order is None:
            return rows
        return write("Gather", rows, self._add(f"{name}.{INVERSE_ORDER}", order.inverse), axis=-1)

    def _add(self, name: str, columns: torch.Tensor) -> ir.Value:
        stream = Computed(tuple(columns.shape), lambda: columns).stream
        return self.graph.add_weight(name, stream, ir.TensorType(ir.DataType.INT64))

    def offset_product(
        self, write: Writer, x: ir.Value, weight: QuantizedWeight, offsets: ir.Value, rank: int = 3
    ) -> ir.Value:
        """Multiply the sums of the blocks of activations, of two or three dimensions, by a weight's offsets [KB, N]."""
        return write("MatMul", self._sum(write, x, weight.format.block_size, weight.shape[1], rank), offsets)

    def _sum(self, write: Writer, x: ir.Value, block_size: int, columns: int, rank: int) -> ir.Value:
        """Return the sums of the blocks of activations [..., K], [..., KB]; a last block may be shorter."""
        key = (id(x), block_size)
        if key not in self._sums:
            blocks = -(-columns // block_size)
            whole = x
            if gap := blocks * block_size - columns:
                whole = write("Pad", x, write.ints(*[0] * (2 * rank - 1), gap))
            parts = write("Reshape", whole, write.ints(*[0] * (rank - 1), blocks, block_size))
            self._sums[key] = write("ReduceSum", parts, write.ints(-1), keepdims=0)
        return self._sums[key]


def offset_type(scheme: Scheme, computed: ir.DataType, *, half: bool = True) -> ir.TensorType:
    """Return the type that offsets are stored in, for a graph that computes in ``computed``."""
    return ir.TensorType(ir.DataType.FLOAT16 if half and scheme.offset_type == "float16" else computed)


def scale_type(scheme: Scheme, computed: ir.DataType, *, half: bool = True) -> ir.TensorType:
    """Return the type that scales are stored in, for a graph that computes in ``computed``."""
    return ir.TensorType(ir.DataType.FLOAT16 if half and scheme.scale_type == "float16" else computed)


def add_offsets(graph: ExportGraph, name: str, weight: QuantizedWeight, type: ir.TensorType) -> ir.Value:
    """Store the offsets [KB, N] of a weight."""
    return graph.add_weight(f"{name}.{OFFSETS}", weight.offsets, type)


def add_offset_rows(graph: ExportGraph, name: str, weight: QuantizedWeight, type: ir.TensorType) -> ir.Value:
    """Store the offsets [N, KB] of an embedding."""
    return graph.add_weight(f"{name}.{OFFSETS}", weight.offset_rows, type)
