"""Integer products with activations in 8 bits, one scale for each token: MatMulIntegerToFloat.

A token's activations are divided by their largest magnitude, which is multiplied back after the product. In between,
one constant scale fits every token, so that the operators for whole tensors serve, and no token can spoil another
(DynamicQuantizeMatMul has one scale for the whole batch). The product is that of unsigned activations, whose zero is
128, with signed weights: the order of types that x86 has instructions for. (Processors without VNNI add pairs of them
in 16 bits, which saturates: there the result is wrong for large weights and activations, and slower as well.)

Projections of one input share its quantization. A bias is added after the token's scale, and stays an Add.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ..graph import Graph
from ..quantize.formats.channels import ChannelWeight
from ..weights import Stacked, Stored, Transposed

ZERO, TOP = 128, 127
"""The code of a zero activation, and how far above it the largest is."""

LEAST = 1e-30
"""What a token of zeros is divided by."""


@dataclass(frozen=True)
class _Activations:
    """``codes`` uint8 [B, S, K], and ``largest`` [B, S, 1], the magnitude that code 127 above zero stands for."""

    codes: ir.Value
    largest: ir.Value


def quantize_dynamic(graph: Graph, choose: Callable[[Stored | Stacked], ChannelWeight | None]) -> int:
    """Replace the float32 multiplications by weights for which ``choose`` has an answer; returns how many."""
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
        assert weight.dtype == ir.DataType.FLOAT, f"{weight.name}: integer products give float32"
        if activations not in known:
            known[activations] = _quantize(graph, node, activations)
        _multiply(graph, node, known[activations], chosen)
        count += 1
    graph.drop_unused_weights()
    return count


def _quantize(graph: Graph, before: ir.Node, value: ir.Value) -> _Activations:
    magnitude = _insert(graph, before, "Abs", [value])
    largest = _insert(graph, before, "ReduceMax", [magnitude, graph.constant(np.array([-1]))], keepdims=1)
    divisor = _insert(graph, before, "Max", [largest, graph.constant(np.float32(LEAST))])
    even = _insert(graph, before, "Div", [value, divisor])
    codes = _insert(graph, before, "QuantizeLinear", [even, *_grid(graph)])
    return _Activations(codes, divisor)


def _multiply(graph: Graph, node: ir.Node, activations: _Activations, weight: ChannelWeight) -> None:
    name = (node.inputs[1].name or "").removesuffix(".weight")  # type: ignore[union-attr]
    codes = graph.add_weight(f"{name}.codes", weight.codes, ir.TensorType(ir.DataType.INT8))
    scales = graph.add_weight(f"{name}.scales", weight.scales, ir.TensorType(ir.DataType.FLOAT))
    step, zero = _grid(graph)
    inputs = [activations.codes, codes, step, scales, zero]
    product = _insert(graph, node, "MatMulIntegerToFloat", inputs, domain="com.microsoft")
    scaled = _insert(graph, node, "Mul", [product, activations.largest])
    graph.replace_output(node.outputs[0], scaled)
    graph.model.graph.remove(node, safe=True)


def _grid(graph: Graph) -> tuple[ir.Value, ir.Value]:
    """The step between two codes of activations within -1 and 1, and the code of zero."""
    return graph.constant(np.float32(1 / TOP)), graph.constant(np.uint8(ZERO))


def _insert(
    graph: Graph, before: ir.Node, op_type: str, inputs: list[ir.Value], *, domain: str = "", **attributes: int
) -> ir.Value:
    listed = [ir.AttrInt64(key, value) for key, value in attributes.items()]
    new = ir.Node(domain, op_type, inputs, attributes=listed, metadata_props=dict(before.metadata_props))
    graph.model.graph.insert_before(before, new)
    return new.outputs[0]
