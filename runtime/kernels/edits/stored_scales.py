"""Scales as they are stored: our kernels take those of half precision, which the graph casts to float32 for others.

ONNX Runtime computes such a Cast when it loads the graph, and that of a table stays in memory beside the stored one.
"""

from ...graph.graph import ATTRIBUTE_INT, FLOAT, FLOAT16, GRAPH_INITIALIZER, TENSOR_DATA_TYPE, TENSOR_NAME, Graph, Node
from ...graph.wire import integers, texts

TAKERS = (b"MatMulNBits", b"GatherBlockQuantized")
SCALES = 2  # the input of both


def with_stored_scales(graph: Graph) -> None:
    """Drop the Casts that stand between the operators of ``TAKERS`` and stored scales."""
    casts = {node.outputs[0]: node for node in graph.nodes if _casts_to_float(node)}
    stored = {node.inputs[0] for node in casts.values()} & _halves(graph)
    casts = {name: node for name, node in casts.items() if node.inputs[0] in stored}
    for node in graph.nodes:
        if node.kind in TAKERS and len(node.inputs) > SCALES and node.inputs[SCALES] in casts:
            node.inputs[SCALES] = casts[node.inputs[SCALES]].inputs[0]
    used = graph.used()
    graph.drop(node for name, node in casts.items() if name not in used)


def _casts_to_float(node: Node) -> bool:
    return node.kind == b"Cast" and any(integers(one, ATTRIBUTE_INT) == [FLOAT] for one in node.attributes)


def _halves(graph: Graph) -> set[bytes]:
    """The names of the stored tensors of half precision."""
    tensors = texts(graph.rest, GRAPH_INITIALIZER)
    halves = (tensor for tensor in tensors if integers(tensor, TENSOR_DATA_TYPE) == [FLOAT16])
    return {name for tensor in halves for name in texts(tensor, TENSOR_NAME)}
