"""Merge the matrix multiplications of a decoder layer that read one input: q, k and v; or gate, up and down of SwiGLU.

The graph has a node for each multiplication with quantized weights, one for the norm before them, and three for
silu(gate) * up. MergedMatMulNBits (native/matmul/merged_operator.c) computes the same results in one node: it
normalizes and quantizes the input once, divides the work among threads once, and keeps intermediate values in the
processor's cache.
"""

from collections.abc import Sequence
from typing import NamedTuple

from ...graph.graph import MICROSOFT, Graph, Node, with_suffix

OPERATOR = b"MergedMatMulNBits"
MATMUL = b"MatMulNBits"
MAX_MATMULS = 3
MATMUL_INPUTS = 7
X, CODES, SCALES, ZERO_POINTS, GROUP_INDEX, BIAS, LOW_BITS = range(7)  # inputs of MatMulNBits
SKIPPING = b"SkipSimplifiedLayerNormalization"
NORM = b"SimplifiedLayerNormalization"
LAST_AXIS = -1
NORM_SUM = 3  # the output x + skip
OUTPUTS = 4


class _Group(NamedTuple):
    """Multiplications that become one node."""

    matmuls: list[Node]
    outputs: list[bytes]
    swiglu: bool = False
    between: Sequence[Node] = ()  # nodes that are merged too


def merge_matmuls(graph: Graph) -> None:
    """Merge the nodes ``MatMulNBits`` that read one input, with the norm before them and the SwiGLU after them.

    Nodes that do not have the inputs and outputs of their operator stay as they are.

    Raises:
        ValueError: two nodes compute the same value.
    """
    makers, used, readers = graph.makers(), graph.used(), graph.readers()
    groups: dict[bytes, list[Node]] = {}
    for node in graph.nodes:
        if _is_matmul(node):
            groups.setdefault(node.inputs[X], []).append(node)
    gone: list[Node] = []
    for x, matmuls in groups.items():
        found = _swiglu(matmuls, used, readers) or _Group(matmuls, [matmul.outputs[0] for matmul in matmuls])
        norm = _norm(makers.get(x), x, used, len(matmuls))
        if len(found.matmuls) > MAX_MATMULS or (norm is None and len(found.matmuls) == 1):
            continue
        _merge(found, norm)
        gone += [*found.matmuls[1:], *found.between, *([] if norm is None else [norm])]
    graph.drop(gone)
    graph.sort()


def _is_matmul(node: Node) -> bool:
    """Return True for a MatMulNBits that can be merged: with the inputs that it needs, and without a group index."""
    return (
        node.is_a(MATMUL, MICROSOFT)
        and SCALES < len(node.inputs) <= MATMUL_INPUTS
        and all(node.inputs[: SCALES + 1])
        and not node.input(GROUP_INDEX)
        and len(node.outputs) == 1
        and bool(node.outputs[0])
    )


def _is_binary(node: Node, inputs: set[bytes]) -> bool:
    """Return True where a node has these two inputs, in any order, and one output."""
    return len(node.inputs) == len(inputs) == 2 and set(node.inputs) == inputs and len(node.outputs) == 1


def _swiglu(matmuls: list[Node], used: dict[bytes, int], readers: dict[bytes, list[Node]]) -> _Group | None:
    """Return gate and up if the two are these, with down after them if it is a multiplication too."""
    if len(matmuls) != 2:
        return None

    def reader(name: bytes, kind: bytes) -> Node | None:
        return next((node for node in readers.get(name, ()) if node.is_a(kind)), None)

    for gate, up in (matmuls, matmuls[::-1]):
        made = gate.outputs[0]
        sigmoid, silu = reader(made, b"Sigmoid"), reader(made, b"Mul")
        if sigmoid is None or silu is None or len(sigmoid.inputs) != 1 or len(sigmoid.outputs) != 1:
            continue
        if not _is_binary(silu, {made, sigmoid.outputs[0]}):
            continue
        last = reader(silu.outputs[0], b"Mul")
        if last is None or not _is_binary(last, {silu.outputs[0], up.outputs[0]}):
            continue
        if [used.get(name) for name in (made, sigmoid.outputs[0], silu.outputs[0], up.outputs[0])] != [2, 1, 1, 1]:
            continue
        between, hidden = (sigmoid, silu, last), last.outputs[0]
        down = next((node for node in readers.get(hidden, ()) if _is_matmul(node) and node.inputs[X] == hidden), None)
        if down is not None and used.get(hidden) == 1:
            return _Group([gate, up, down], [down.outputs[0]], True, between)
        return _Group([gate, up], [hidden], True, between)
    return None


def _norm(maker: Node | None, x: bytes, used: dict[bytes, int], readers: int) -> Node | None:
    """Return the node that computes x if it is a norm of the last axis that only this number of nodes reads."""
    if maker is None or maker.output(0) != x or used.get(x) != readers or len(maker.named(b"epsilon")) != 1:
        return None
    skips = maker.is_a(SKIPPING, MICROSOFT)
    if not skips and not (maker.is_a(NORM) and maker.integers(b"axis") in ([], [LAST_AXIS])):
        return None
    needed = 2 + skips  # x, skip and the weight; a bias after them is not supported
    if not all(maker.inputs[:needed]) or len(maker.inputs) < needed or any(maker.inputs[needed:]):
        return None
    return None if any(used.get(name) for name in maker.outputs[1:NORM_SUM] if name) else maker


def _merge(found: _Group, norm: Node | None) -> None:
    """Turn the first of the nodes into the merged one."""
    merged = found.matmuls[0]
    inputs, attributes = [merged.inputs[X], b"", b""], []
    outputs = [*found.outputs, *[b""] * (OUTPUTS - len(found.outputs))]
    if norm is not None:
        skip = norm.kind == SKIPPING
        inputs = [norm.inputs[0], norm.inputs[1] if skip else b"", norm.inputs[1 + skip]]
        outputs[-1] = norm.output(NORM_SUM) if skip else b""
        attributes += norm.named(b"epsilon")
    for number, matmul in enumerate(found.matmuls):
        inputs += [matmul.input(index) for index in (CODES, SCALES, ZERO_POINTS, BIAS, LOW_BITS)]
        attributes += [with_suffix(one, b"%d" % number) for one in matmul.attributes]
    merged.inputs, merged.outputs, merged.attributes = inputs, outputs, attributes
    merged.kind = OPERATOR
    merged.name = merged.name.rpartition(b"/")[0].rpartition(b".")[0] + b"/" + OPERATOR
    merged.add_integer(b"matrices", len(found.matmuls))
    merged.add_integer(b"swiglu", int(found.swiglu))
