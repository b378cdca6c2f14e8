"""Weights in blocks for ONNX Runtime: MatMulNBits and GatherBlockQuantized (onnxruntime/docs/ContribOperators.md).

A bias is folded in. An embedding that is the LM head too is stored once: both nodes take the same codes, and its scales
lie once in the file under two shapes. Scales are stored in float16 and widened by a Cast that ONNX Runtime folds when
it loads the graph.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ..graph import Graph
from ..quantize.formats.recipes import Quantized
from ..weights import Stacked, Stored, Transposed

CODES, SCALES, ZERO_POINTS = "codes", "scales", "zero_points"
"""What is appended to a weight's name."""


@dataclass(frozen=True)
class _Parts:
    codes: ir.Value
    scales: ir.Value
    zero_points: ir.Value | None


def quantize_ort(graph: Graph, choose: Callable[[Stored | Stacked], Quantized | None]) -> int:
    """Replace the multiplications and gathers by weights for which ``choose`` has an answer; returns how many."""
    parts: dict[ir.Value, tuple[Quantized, _Parts]] = {}
    count = 0
    for node, weight, inner in weight_uses(graph, _weight):
        if weight not in parts:
            quantized = choose(inner)
            if quantized is None:
                continue
            parts[weight] = (quantized, _store(graph, weight, quantized))
        quantized, stored = parts[weight]
        if node.op_type == "Gather":
            _gather(graph, node, quantized, stored)
        else:
            _multiply(graph, node, quantized, stored)
        count += 1
    graph.drop_unused_weights()
    return count


def weight_uses(
    graph: Graph, operand: Callable[[ir.Node], ir.Value | None]
) -> Iterator[tuple[ir.Node, ir.Value, Stored | Stacked]]:
    """The nodes whose ``operand`` is a weight of the checkpoint: node, weight, and its recipe as [N, K].

    Safe against changes to the graph on the way.
    """
    for node in list(graph.model.graph):
        weight = operand(node)
        recipe = graph.recipe_of(weight)
        inner = recipe.inner if isinstance(recipe, Transposed) else recipe
        if weight is not None and isinstance(inner, Stored | Stacked):
            yield node, weight, inner


def _weight(node: ir.Node) -> ir.Value | None:
    """The operand that may be a weight in blocks: of products the right one, of a gather the table."""
    if node.op_type == "MatMul":
        return node.inputs[1]
    if node.op_type == "FusedMatMul" and node.attributes["transB"].as_int():
        return node.inputs[1]
    return node.inputs[0] if node.op_type == "Gather" else None


def _store(graph: Graph, weight: ir.Value, quantized: Quantized) -> _Parts:
    name = (weight.name or "").removesuffix(".weight")
    byte = ir.TensorType(ir.DataType.UINT8)
    codes = graph.add_weight(f"{name}.{CODES}", quantized.codes, byte)
    half = graph.add_weight(f"{name}.{SCALES}", quantized.scales, ir.TensorType(ir.DataType.FLOAT16))
    zeros = None
    if not quantized.format.symmetric:
        zeros = graph.add_weight(f"{name}.{ZERO_POINTS}", quantized.zero_points, byte)
    return _Parts(codes, half, zeros)


def _multiply(graph: Graph, node: ir.Node, quantized: Quantized, parts: _Parts) -> None:
    bias, last = _bias(graph, node)
    output = last.outputs[0]
    assert output.dtype is not None
    scales = _as(graph, node, parts.scales, output.dtype)
    inputs = [node.inputs[0], parts.codes, scales, parts.zero_points, None, bias]
    while inputs[-1] is None:
        inputs.pop()
    rows, columns = quantized.shape
    attributes = {
        "K": columns,
        "N": rows,
        "bits": quantized.format.bits,
        "block_size": quantized.format.block_size,
        "accuracy_level": quantized.accuracy_level,
    }
    product = ir.Node(
        "com.microsoft",
        "MatMulNBits",
        inputs,
        attributes=[ir.AttrInt64(key, value) for key, value in attributes.items()],
        metadata_props=dict(node.metadata_props),
    )
    graph.model.graph.insert_before(node, product)
    graph.replace_output(output, product.outputs[0])
    graph.model.graph.remove([last] if last is node else [last, node], safe=True)


def _bias(graph: Graph, node: ir.Node) -> tuple[ir.Value | None, ir.Node]:
    """The weight that is added to the product and to nothing else, and the node that gives the sum."""
    users = [user for user, _ in node.outputs[0].uses()]
    if len(users) == 1 and not node.outputs[0].is_graph_output():
        add = users[0]
        if add.op_type == "Add" and add.inputs[0] is node.outputs[0] and graph.recipe_of(add.inputs[1]) is not None:
            return add.inputs[1], add
    return None, node


def _gather(graph: Graph, node: ir.Node, quantized: Quantized, parts: _Parts) -> None:
    output = node.outputs[0]
    assert output.dtype is not None
    size, blocks = quantized.format.block_size, quantized.blocks
    props = dict(node.metadata_props)
    # A row of blocks is gathered as [KB, block_size]; scales of [V, KB, 1] then need no copy of the codes.
    stored = graph.alias(parts.scales, f"{parts.scales.name}.rows", (*quantized.scales.shape, 1))
    scales = _as(graph, node, stored, output.dtype)
    rows = ir.Node(
        "com.microsoft",
        "GatherBlockQuantized",
        [parts.codes, node.inputs[1], scales],
        attributes=[
            ir.AttrInt64("bits", quantized.format.bits),
            ir.AttrInt64("block_size", size),
            ir.AttrInt64("gather_axis", 0),
            ir.AttrInt64("quantize_axis", 2),
        ],
        metadata_props=dict(props),
    )
    flat = _reshape(graph, rows.outputs[0], blocks * size, props)
    new = [rows, flat]
    if blocks * size != quantized.shape[1]:
        ends = [graph.constant(np.array([value])) for value in (0, quantized.shape[1], -1)]
        new.append(ir.Node("", "Slice", [flat.outputs[0], *ends], metadata_props=dict(props)))
    graph.model.graph.insert_before(node, new)
    graph.replace_output(output, new[-1].outputs[0])
    graph.model.graph.remove(node, safe=True)


def _reshape(graph: Graph, value: ir.Value, width: int, props: dict[str, str]) -> ir.Node:
    return ir.Node("", "Reshape", [value, graph.constant(np.array([0, 0, width]))], metadata_props=dict(props))


def _as(graph: Graph, node: ir.Node, value: ir.Value, dtype: ir.DataType) -> ir.Value:
    """``value`` in another element type, by a Cast before ``node``."""
    if value.dtype == dtype:
        return value
    props = dict(node.metadata_props)
    cast = ir.Node("", "Cast", [value], attributes=[ir.AttrInt64("to", int(dtype))], metadata_props=props)
    cast.outputs[0].type, cast.outputs[0].shape = ir.TensorType(dtype), value.shape
    graph.model.graph.insert_before(node, cast)
    return cast.outputs[0]
