"""Scales as they are stored: our kernels take those of half precision, which the graph casts to float32 for others.

ONNX Runtime computes such a Cast when it loads the graph, and that of a table stays in memory beside the stored one.
"""

from ..graphs import (
    ATTRIBUTE_INT,
    FLOAT,
    FLOAT16,
    GRAPH_INITIALIZER,
    GRAPH_NODE,
    GRAPH_OUTPUT,
    NODE_ATTRIBUTE,
    NODE_INPUT,
    NODE_OP_TYPE,
    NODE_OUTPUT,
    TENSOR_DATA_TYPE,
    TENSOR_NAME,
    VALUE_NAME,
)
from ..protobuf import Field, delimited, fields, integers, texts

TAKERS = (b"MatMulNBits", b"GatherBlockQuantized")
SCALES = 2  # the input of both


def with_stored_scales(graph: bytes) -> bytes:
    """The serialized graph with the Casts gone that stand between the operators of ``TAKERS`` and stored scales.

    Raises:
        ValueError: the bytes are no graph.
    """
    found = list(fields(graph))
    nodes = {field: _Node(graph[field.value : field.end]) for field in found if field.number == GRAPH_NODE}
    casts = {node.outputs[0]: node.inputs[0] for node in nodes.values() if node.casts_to_float()}
    stored = set(casts.values()) & _halves(graph, found)
    casts = {after: before for after, before in casts.items() if before in stored}
    used = {name for value in texts(graph, GRAPH_OUTPUT) for name in texts(value, VALUE_NAME)}
    for node in nodes.values():
        if node.kind in TAKERS and len(node.inputs) > SCALES:
            node.inputs[SCALES] = casts.get(node.inputs[SCALES], node.inputs[SCALES])
        used.update(node.inputs)
    unused = casts.keys() - used
    parts = []
    for field in found:
        if field not in nodes:
            parts.append(graph[field.start : field.end])
        elif unused.isdisjoint(nodes[field].outputs):
            parts.append(delimited(GRAPH_NODE, nodes[field].message()))
    return b"".join(parts)


class _Node:
    """A serialized ``NodeProto``, read once; its inputs may be changed."""

    def __init__(self, message: bytes) -> None:
        self.inputs: list[bytes] = []
        self.outputs: list[bytes] = []
        self.kind = b""
        self._rest: list[bytes] = []
        self._attributes: list[bytes] = []
        for number, _, start, value, end in fields(message):
            if number == NODE_INPUT:
                self.inputs.append(message[value:end])
                continue
            self._rest.append(message[start:end])
            if number == NODE_OUTPUT:
                self.outputs.append(message[value:end])
            elif number == NODE_OP_TYPE:
                self.kind = message[value:end]
            elif number == NODE_ATTRIBUTE:
                self._attributes.append(message[value:end])

    def casts_to_float(self) -> bool:
        return self.kind == b"Cast" and any(integers(one, ATTRIBUTE_INT) == [FLOAT] for one in self._attributes)

    def message(self) -> bytes:
        return b"".join([delimited(NODE_INPUT, name) for name in self.inputs] + self._rest)


def _halves(graph: bytes, found: list[Field]) -> set[bytes]:
    """The names of the stored tensors of half precision."""
    tensors = (graph[field.value : field.end] for field in found if field.number == GRAPH_INITIALIZER)
    halves = (tensor for tensor in tensors if integers(tensor, TENSOR_DATA_TYPE) == [FLOAT16])
    return {name for tensor in halves for name in texts(tensor, TENSOR_NAME)}
