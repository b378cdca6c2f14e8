"""Unsigned weights for integer matrix multiplications, on processors whose signed ones saturate.

Without VNNI, x86 multiplies unsigned bytes by signed ones with VPMADDUBSW, which adds pairs of products to 16 bits and
saturates: ONNX Runtime's MatMulIntegerToFloat is wrong there for large weights and activations. It multiplies unsigned
weights in another way, which is exact. ONNX Runtime converts the weights once, when it loads the graph.
"""

from .graph import (
    GRAPH_INITIALIZER,
    INT8,
    MICROSOFT,
    MODEL_GRAPH,
    TENSOR_DATA_TYPE,
    TENSOR_NAME,
    TENSOR_RAW_DATA,
    UINT8,
    Graph,
    Node,
)
from .wire import delimited, edit, integer, integers, texts

OPERATOR = b"MatMulIntegerToFloat"
CODES, ZERO_POINT = 1, 5
"""Inputs of the operator: the weights [K, N], and their zero point."""

SIGN_BIT = b"intaglio.sign_bit"


def with_unsigned_weights(graph: Graph) -> None:
    """Let the multiplications by stored int8 weights read them as uint8, with a zero point of 128."""
    stored = {name for tensor in texts(graph.rest, GRAPH_INITIALIZER) for name in _int8(tensor)}
    made: list[Node] = []
    unsigned: dict[bytes, bytes] = {}
    for node in graph.nodes:
        codes = node.input(CODES)
        if not node.is_a(OPERATOR, MICROSOFT) or codes not in stored or node.input(ZERO_POINT):
            continue
        if codes not in unsigned:
            unsigned[codes] = codes + b".unsigned"
            cast = _node(b"Cast", [codes], codes + b".bits")
            cast.add_integer(b"to", UINT8)
            made += [cast, _node(b"BitwiseXor", [cast.outputs[0], SIGN_BIT], unsigned[codes])]
        node.inputs += [b""] * (ZERO_POINT + 1 - len(node.inputs))
        node.inputs[CODES], node.inputs[ZERO_POINT] = unsigned[codes], SIGN_BIT
    if made:
        graph.nodes = made + graph.nodes
        value = delimited(TENSOR_NAME, SIGN_BIT) + delimited(TENSOR_RAW_DATA, b"\x80")
        graph.rest += delimited(GRAPH_INITIALIZER, integer(TENSOR_DATA_TYPE, UINT8) + value)


def unsigned_model(model: bytes) -> bytes:
    """Return a serialized model whose graph ``with_unsigned_weights`` has changed.

    Raises:
        ValueError: the bytes are not a model.
    """

    def change(message: bytes) -> bytes:
        graph = Graph(message)
        with_unsigned_weights(graph)
        return graph.message()

    return edit(model, MODEL_GRAPH, change)


def _int8(tensor: bytes) -> list[bytes]:
    """Return the name of a stored tensor of int8 in a list, which is empty for another one."""
    return texts(tensor, TENSOR_NAME) if integers(tensor, TENSOR_DATA_TYPE) == [INT8] else []


def _node(kind: bytes, inputs: list[bytes], output: bytes) -> Node:
    node = Node(b"")
    node.kind, node.name, node.inputs, node.outputs = kind, output, inputs, [output]
    return node
