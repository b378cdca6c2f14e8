"""Weights of 5 bits, as they are stored: intaglio's kernels read their two parts, and ONNX Runtime's need them joined.

ONNX Runtime joins them while it loads the graph; the result is weights of 8 bits, which take more memory and time.
"""

from ....contract import JOIN_BITS
from ...graph.graph import GRAPH_INITIALIZER, MICROSOFT, TENSOR_NAME, Graph, Node
from ...graph.wire import texts

DOMAIN, JOIN = (name.encode() for name in JOIN_BITS)
CODES = {b"MatMulNBits": 1, b"GatherBlockQuantized": 0}
"""The input with the codes, by operator."""
LOW_BITS = {b"MatMulNBits": 6, b"GatherBlockQuantized": 4}
"""The input with the low bits, by operator, which only intaglio's have."""


def use_low_bits(graph: Graph) -> None:
    """Let the operators of ``CODES`` read the parts of weights of 5 bits, and drop the nodes that join them.

    Raises:
        ValueError: two nodes compute the same value.
    """
    graph.makers()
    stored = {name for tensor in texts(graph.rest, GRAPH_INITIALIZER) for name in texts(tensor, TENSOR_NAME)}
    joins = {node.output(0): node for node in graph.nodes if _joins(node, stored)}
    for node in graph.nodes:
        if node.kind not in CODES or node.domain != MICROSOFT:
            continue
        codes, low_bits = CODES[node.kind], LOW_BITS[node.kind]
        join = joins.get(node.input(codes))
        if join is None or len(node.inputs) > low_bits or node.integers(b"bits") != [8]:
            continue
        node.inputs += [b""] * (low_bits - len(node.inputs))
        node.inputs[codes], low = join.inputs
        node.inputs.append(low)
        node.attributes = [one for one in node.attributes if one not in node.named(b"bits")]
        node.add_integer(b"bits", 5)
    used = graph.used()
    graph.drop(node for name, node in joins.items() if name not in used)


def _joins(node: Node, stored: set[bytes]) -> bool:
    """Return True for a node that joins two stored tensors."""
    parts = len(node.inputs) == 2 and all(name in stored for name in node.inputs)
    return node.is_a(JOIN, DOMAIN) and parts and len(node.outputs) == 1 and bool(node.outputs[0])
