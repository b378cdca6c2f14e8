"""SwiGLU's gate as a part of the product that it is multiplied with.

The graph has silu(gate) * up as Sigmoid, Mul and Mul, each over arrays as large as both products'. Our MatMulNBits has
one input more than ONNX Runtime's: with a gate, [M, N], it gives silu(gate) * (x · Wᵀ + bias), and no array between.
"""

from ..graphs import Graph, Node

GATE = 6  # the input, behind those of com.microsoft.MatMulNBits


def with_gates(graph: Graph) -> None:
    """Let the products of ``MatMulNBits`` that are multiplied with silu(gate), and are not read elsewhere, do that."""
    makers, used = graph.makers(), graph.used()

    def once(name: bytes, kind: bytes) -> Node | None:
        """What makes a value that is read once, if it is of this kind."""
        node = makers.get(name)
        return node if node is not None and node.kind == kind and used[name] == 1 else None

    gone: list[Node] = []
    for number, node in enumerate(graph.nodes):
        if node.kind != b"Mul":
            continue
        for one, other in (node.inputs, reversed(node.inputs)):
            product, silu = once(one, b"MatMulNBits"), once(other, b"Mul")
            if product is None or silu is None or len(product.inputs) > GATE:
                continue
            sigmoid = once(silu.inputs[0], b"Sigmoid") or once(silu.inputs[1], b"Sigmoid")
            if sigmoid is None or set(silu.inputs) != {*sigmoid.inputs, *sigmoid.outputs}:
                continue
            product.inputs += [b""] * (GATE - len(product.inputs)) + sigmoid.inputs
            product.outputs = node.outputs
            # The gate may be computed behind the product, which moves to where it is there.
            graph.nodes[graph.nodes.index(product)] = node
            graph.nodes[number] = product
            gone += [node, silu, sigmoid]
            break
    graph.drop(gone)
