"""Insert nodes of ai.onnx before another node."""

import numpy as np
import onnx_ir as ir

from ..graph import ExportGraph


class Writer:
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
