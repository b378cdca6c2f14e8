"""Integer matrix multiplications, activations in 8 bits with one scale for each token: MatMulIntegerToFloat.

A token's activations are divided by their largest magnitude, which is multiplied back after the multiplication. In
between, one constant scale fits every token, so that operators with one scale for the whole tensor can be used, and no
token affects another (DynamicQuantizeMatMul has one scale for the whole batch). Activations are unsigned, with a zero
of 128, and weights signed: the order of types that x86 has instructions for. (Without VNNI they saturate, and
intaglio's runtime makes the weights unsigned: ``runtime.graph.unsigned_weights``.)

Projections of one input share its quantization. A bias is added after the token's scale, and stays an Add.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ..graph import ExportGraph
from ..quantize.formats.channels import ChannelWeight
from ..quantize.formats.weight import CODES, SCALES, RowSource
from ..weights import Stacked, Stored, Transposed

ZERO, TOP = 128, 127
"""The code of a zero activation, and the distance of the largest code from it."""

LEAST = 1e-30
"""The divisor of a token of zeros."""


@dataclass(frozen=True)
class _Activations:
    """``codes`` uint8 [B, S, K], and ``largest`` [B, S, 1], the magnitude that a code of 127 above zero represents."""

    codes: ir.Value
    largest: ir.Value


def quantize_dynamic(graph: ExportGraph, choose: Callable[[Stored | Stacked], RowSource | None]) -> int:
    """Replace the float32 multiplications by weights for which ``choose`` returns rows; return how many."""
    known: dict[ir.Value, _Activations] = {}
    count = 0
    for node in graph.nodes("MatMul"):
        activations, weight = node.inputs
        recipe = graph.recipe_of(weight)
        if activations is None or weight is None or not isinstance(recipe, Transposed):
            continue
        chosen = choose(recipe.inner)
        if chosen is None:
            continue
        assert weight.dtype == ir.DataType.FLOAT, f"{weight.name}: integer matrix multiplications give float32"
        if activations not in known:
            known[activations] = _quantize(graph, node, activations)
        _multiply(graph, node, known[activations], ChannelWeight(chosen))
        count += 1
    graph.drop_unused_weights()
    return count


def _quantize(graph: ExportGraph, before: ir.Node, value: ir.Value) -> _Activations:
    magnitude = _insert(graph, before, "Abs", [value])
    largest = _insert(graph, before, "ReduceMax", [magnitude, graph.constant(np.array([-1]))], keepdims=1)
    divisor = _insert(graph, before, "Max", [largest, graph.constant(np.float32(LEAST))])
    even = _insert(graph, before, "Div", [value, divisor])
    codes = _insert(graph, before, "QuantizeLinear", [even, *_grid(graph)])
    return _Activations(codes, divisor)


def _multiply(graph: ExportGraph, node: ir.Node, activations: _Activations, weight: ChannelWeight) -> None:
    name = (node.inputs[1].name or "").removesuffix(".weight")  # type: ignore[union-attr]
    codes = graph.add_weight(f"{name}.{CODES}", weight.codes, ir.TensorType(ir.DataType.INT8))
    scales = graph.add_weight(f"{name}.{SCALES}", weight.scales, ir.TensorType(ir.DataType.FLOAT))
    step, zero = _grid(graph)
    inputs = [activations.codes, codes, step, scales, zero]
    product = _insert(graph, node, "MatMulIntegerToFloat", inputs, domain="com.microsoft")
    scaled = _insert(graph, node, "Mul", [product, activations.largest])
    graph.replace_output(node.outputs[0], scaled)
    graph.model.graph.remove(node, safe=True)


def _grid(graph: ExportGraph) -> tuple[ir.Value, ir.Value]:
    """Return the step between two codes of activations within -1 and 1, and the code of zero."""
    return graph.constant(np.float32(1 / TOP)), graph.constant(np.uint8(ZERO))


def _insert(
    graph: ExportGraph, before: ir.Node, op_type: str, inputs: list[ir.Value], *, domain: str = "", **attributes: int
) -> ir.Value:
    listed = [ir.AttrInt64(key, value) for key, value in attributes.items()]
    new = ir.Node(domain, op_type, inputs, attributes=listed, metadata_props=dict(before.metadata_props))
    graph.model.graph.insert_before(before, new)
    return new.outputs[0]
