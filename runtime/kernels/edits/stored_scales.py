"""Scales in float16, as they are stored: intaglio's kernels read them, and ONNX Runtime's need a Cast to float32.

ONNX Runtime computes such a Cast while it loads the graph; the result takes memory beside the stored scales.
"""

from ...graph.graph import (
    FLOAT,
    FLOAT16,
    GRAPH_INITIALIZER,
    MICROSOFT,
    TENSOR_DATA_TYPE,
    TENSOR_NAME,
    Graph,
    Node,
)
from ...graph.wire import integers, texts

READERS = (b"MatMulNBits", b"GatherBlockQuantized")
SCALES = 2  # an input of both


def use_stored_scales(graph: Graph) -> None:
    """Drop the Casts between stored scales and the operators of ``READERS``.

    Raises:
        ValueError: two nodes compute the same value.
    """
    graph.makers()
    halves = _halves(graph)
    casts = {node.output(0): node for node in graph.nodes if _casts_to_float(node) and node.inputs[0] in halves}
    for node in graph.nodes:
        if node.kind in READERS and node.domain == MICROSOFT and node.input(SCALES) in casts:
            node.inputs[SCALES] = casts[node.inputs[SCALES]].inputs[0]
    used = graph.used()
    graph.drop(node for name, node in casts.items() if name not in used)


def _casts_to_float(node: Node) -> bool:
    """Return True for a Cast of a value to float32."""
    values = len(node.inputs) == 1 and bool(node.inputs[0]) and len(node.outputs) == 1 and bool(node.outputs[0])
    return node.is_a(b"Cast") and values and node.integers(b"to") == [FLOAT]


def _halves(graph: Graph) -> set[bytes]:
    """Return the names of the stored float16 tensors."""
    tensors = texts(graph.rest, GRAPH_INITIALIZER)
    halves = (tensor for tensor in tensors if integers(tensor, TENSOR_DATA_TYPE) == [FLOAT16])
    return {name for tensor in halves for name in texts(tensor, TENSOR_NAME)}
