"""Three projections of one input that go straight into GroupQueryAttention become one.

Where norms stand between (EXAONE 4.0), packing would need a Split, which copies: those stay three.
"""

from collections.abc import Callable, Sequence

import onnx_ir as ir

from ..graph import Graph
from ..instantiate import SCOPES
from ..weights import packed


def pack_qkv(graph: Graph, alike: Callable[[Sequence[str]], bool]) -> int:
    """Pack them where ``alike`` says that tensors of these names are stored alike; returns how many attentions."""
    count = 0
    for attention in graph.nodes("GroupQueryAttention"):
        linears = [_linear(graph, value) for value in attention.inputs[:3]]
        if None in linears:
            continue
        matmuls, adds = zip(*[linear for linear in linears if linear is not None], strict=True)
        if len({node.inputs[0] for node in matmuls}) > 1 or len({add is None for add in adds}) > 1:
            continue
        if not alike([name for node in matmuls for name in graph.recipes[node.inputs[1].name].sources]):
            continue
        output = _packed(graph, matmuls, attention)
        if adds[0] is not None:
            output = _packed(graph, [_with_input(add, output) for add in adds], attention)
        attention.replace_input_with(0, output)
        attention.replace_input_with(1, None)
        attention.replace_input_with(2, None)
        graph.model.graph.remove([node for node in (*adds, *matmuls) if node is not None], safe=True)
        count += 1
    graph.drop_unused_weights()
    return count


def _with_input(node: ir.Node, value: ir.Value) -> ir.Node:
    node.replace_input_with(0, value)
    return node


def _linear(graph: Graph, value: ir.Value | None) -> tuple[ir.Node, ir.Node | None] | None:
    """The MatMul, and the Add of its bias if any, that make ``value`` for one user; None where something else does."""
    node = _producer(value)
    add = node if node is not None and node.op_type == "Add" else None
    if add is not None:
        node = _producer(add.inputs[0])
        if graph.recipe_of(add.inputs[1]) is None:
            return None
    if node is None or node.op_type != "MatMul" or graph.recipe_of(node.inputs[1]) is None:
        return None
    return node, add


def _producer(value: ir.Value | None) -> ir.Node | None:
    return value.producer() if value is not None and len(value.uses()) == 1 else None


def _packed(graph: Graph, nodes: Sequence[ir.Node], before: ir.Node) -> ir.Value:
    """One node for three that differ in their weights alone; their weights packed in their order."""
    first = nodes[0]
    weights = [node.inputs[1] for node in nodes]
    recipe = packed([graph.recipes[weight.name] for weight in weights if weight is not None and weight.name])
    assert weights[0] is not None
    name = (weights[0].name or "").replace("q_proj", "qkv_proj")
    weight = graph.add_weight(name, recipe, weights[0].type)
    scopes = {SCOPES: first.metadata_props[SCOPES].replace("q_proj", "qkv_proj")}
    node = ir.Node("", first.op_type, [first.inputs[0], weight], num_outputs=1, metadata_props=scopes)
    shape = first.outputs[0].shape
    node.outputs[0].type = first.outputs[0].type
    node.outputs[0].shape = None if shape is None else ir.Shape([*shape[:-1], recipe.shape[-1]])
    graph.model.graph.insert_before(before, node)
    return node.outputs[0]
