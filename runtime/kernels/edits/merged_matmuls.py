"""A decoder layer's products with one input as one operator: q, k and v; SwiGLU's gate and up, and down behind them.

The graph has a node for each product with quantized weights, for the norm before them, and three for silu(gate) * up.
NBitsLayer (native/layer_op.c) does all that with the same results: it normalizes and quantizes what they read once, has
one division of work among threads where there were several, and keeps what only the next step reads in the cache.
"""

from collections.abc import Sequence
from typing import NamedTuple

from ...graph.graph import Graph, Node, with_suffix

OPERATOR = b"NBitsLayer"
PRODUCT = b"MatMulNBits"
MOST_PRODUCTS = 3
X, CODES, SCALES, ZERO_POINTS, GROUP_INDEX, BIAS = range(6)  # inputs of MatMulNBits
SKIPPING = b"SkipSimplifiedLayerNormalization"
NORMS = (b"SimplifiedLayerNormalization", SKIPPING)
NORM_SUM = 3  # the output x + skip
OUTPUTS = 4


class _Together(NamedTuple):
    """Products that become one node."""

    products: list[Node]
    outputs: list[bytes]
    swiglu: bool = False
    between: Sequence[Node] = ()  # what they make superfluous


def with_layers(graph: Graph) -> None:
    """Merge the products of ``MatMulNBits`` that have their input in common, and what stands around them."""
    makers, used, readers = graph.makers(), graph.used(), graph.readers()
    groups: dict[bytes, list[Node]] = {}
    for node in graph.nodes:
        if node.kind == PRODUCT and not node.input(GROUP_INDEX):
            groups.setdefault(node.inputs[X], []).append(node)
    gone: list[Node] = []
    for x, products in groups.items():
        found = _swiglu(products, used, readers) or _Together(products, [product.outputs[0] for product in products])
        norm = _norm(makers.get(x), used, len(products))
        if len(found.products) > MOST_PRODUCTS or (norm is None and len(found.products) == 1):
            continue
        _become_layer(found, norm)
        gone += [*found.products[1:], *found.between, *([] if norm is None else [norm])]
    graph.drop(gone)
    graph.sort()


def _swiglu(products: list[Node], used: dict[bytes, int], readers: dict[bytes, list[Node]]) -> _Together | None:
    """Gate and up, if the two are that, and down behind them, if it is a product too."""
    if len(products) != 2:
        return None

    def reader(name: bytes, kind: bytes) -> Node | None:
        return next((node for node in readers.get(name, ()) if node.kind == kind), None)

    for gate, up in (products, products[::-1]):
        made = gate.outputs[0]
        sigmoid, silu = reader(made, b"Sigmoid"), reader(made, b"Mul")
        if sigmoid is None or silu is None or set(silu.inputs) != {made, sigmoid.outputs[0]}:
            continue
        last = reader(silu.outputs[0], b"Mul")
        if last is None or set(last.inputs) != {silu.outputs[0], up.outputs[0]}:
            continue
        if [used[name] for name in (made, sigmoid.outputs[0], silu.outputs[0], up.outputs[0])] != [2, 1, 1, 1]:
            continue
        between, hidden = (sigmoid, silu, last), last.outputs[0]
        down = reader(hidden, PRODUCT) if used.get(hidden) == 1 else None
        if down is not None and down.inputs[X] == hidden and not down.input(GROUP_INDEX):
            return _Together([gate, up, down], [down.outputs[0]], True, between)
        return _Together([gate, up], [hidden], True, between)
    return None


def _norm(maker: Node | None, used: dict[bytes, int], readers: int) -> Node | None:
    """What makes x, if that is a norm, and no one reads it but so many products."""
    if maker is None or maker.kind not in NORMS or used[maker.outputs[0]] != readers or not maker.named(b"epsilon"):
        return None
    return None if any(used.get(name) for name in maker.outputs[1:NORM_SUM] if name) else maker


def _become_layer(found: _Together, norm: Node | None) -> None:
    """Make the first of the products what all of them are, with the norm before them."""
    layer = found.products[0]
    inputs, attributes = [layer.inputs[X], b"", b""], []
    outputs = [*found.outputs, *[b""] * (OUTPUTS - len(found.outputs))]
    if norm is not None:
        skip = norm.kind == SKIPPING
        inputs = [norm.inputs[0], norm.inputs[1] if skip else b"", norm.inputs[1 + skip]]
        outputs[-1] = norm.outputs[NORM_SUM] if skip and len(norm.outputs) > NORM_SUM else b""
        attributes += norm.named(b"epsilon")
    for number, product in enumerate(found.products):
        inputs += [product.input(index) for index in (CODES, SCALES, ZERO_POINTS, BIAS)]
        attributes += [with_suffix(one, b"%d" % number) for one in product.attributes]
    layer.inputs, layer.outputs, layer.attributes = inputs, outputs, attributes
    layer.kind = OPERATOR
    layer.name = layer.name.rpartition(b"/")[0].rpartition(b".")[0] + b"/" + OPERATOR
    layer.add_integer(b"matrices", len(found.products))
    layer.add_integer(b"swiglu", int(found.swiglu))
