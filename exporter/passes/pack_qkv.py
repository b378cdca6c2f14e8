"""The q, k and v projections of one input become one, where they feed GroupQueryAttention directly.

With norms in between (EXAONE 4.0), packing would need a Split, which copies, so those stay separate.
"""

from collections.abc import Callable, Sequence

import onnx_ir as ir

from ..graph import ExportGraph
from ..instantiate import SCOPES
from ..weights import packed


def pack_qkv(graph: ExportGraph, alike: Callable[[Sequence[str]], bool]) -> int:
    """Pack where ``alike`` returns true for the names of the three tensors; return the number of attentions packed."""
    count = 0
    for attention in graph.nodes("GroupQueryAttention"):
        linears = [_linear(graph, value) for value in attention.inputs[:3]]
        if None in linears:
            continue
        matmuls, adds = zip(*[linear for linear in linears if linear is not None], strict=True)
        if len({node.inputs[0] for node in matmuls}) > 1 or len({add is None for add in adds}) > 1:
            continue
        if not alike([name for node in matmuls for name in graph.streams[node.inputs[1].name].sources]):
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


def _linear(graph: ExportGraph, value: ir.Value | None) -> tuple[ir.Node, ir.Node | None] | None:
    """Return the MatMul, and the Add of its bias if any, that compute ``value`` for one user; None for other nodes."""
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


def _packed(graph: ExportGraph, nodes: Sequence[ir.Node], before: ir.Node) -> ir.Value:
    """Insert one node for three that differ only in their weights, which are packed in order."""
    first = nodes[0]
    weights = [node.inputs[1] for node in nodes]
    stream = packed([graph.streams[w.name].recipe for w in weights if w is not None and w.name]).stream
    assert weights[0] is not None
    name = (weights[0].name or "").replace("q_proj", "qkv_proj")
    weight = graph.add_weight(name, stream, weights[0].type)
    scopes = {SCOPES: first.metadata_props[SCOPES].replace("q_proj", "qkv_proj")}
    node = ir.Node("", first.op_type, [first.inputs[0], weight], num_outputs=1, metadata_props=scopes)
    shape = first.outputs[0].shape
    node.outputs[0].type = first.outputs[0].type
    node.outputs[0].shape = None if shape is None else ir.Shape([*shape[:-1], stream.shape[-1]])
    graph.model.graph.insert_before(before, node)
    return node.outputs[0]
