"""Changing a graph in memory before ONNX Runtime loads it."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from ...contract import JOIN_BITS
from .wire import LENGTH_DELIMITED, delimited, edit, fields, integer, integers, texts

# Field numbers of onnx.proto.
MODEL_GRAPH, MODEL_FUNCTIONS = 7, 25
FUNCTION_NAME, FUNCTION_DOMAIN = 1, 10
GRAPH_NODE, GRAPH_INITIALIZER, GRAPH_INPUT, GRAPH_OUTPUT = 1, 5, 11, 12
NODE_INPUT, NODE_OUTPUT, NODE_NAME, NODE_OP_TYPE, NODE_ATTRIBUTE, NODE_DOMAIN = 1, 2, 3, 4, 5, 7
ATTRIBUTE_NAME, ATTRIBUTE_INT, ATTRIBUTE_TYPE, TYPE_INT = 1, 3, 20, 2
TENSOR_DATA_TYPE, TENSOR_NAME, TENSOR_RAW_DATA, TENSOR_EXTERNAL_DATA = 2, 8, 9, 13
ENTRY_KEY, ENTRY_VALUE = 1, 2
VALUE_NAME, VALUE_TYPE = 1, 2
TYPE_TENSOR, TYPE_TENSOR_ELEMENT = 1, 1
FLOAT, UINT8, INT8, FLOAT16 = 1, 2, 3, 10  # element types
ONNX, MICROSOFT = b"", b"com.microsoft"  # domains of operators


class Node:
    """A parsed ``NodeProto``. Its inputs, outputs, name, kind (op_type) and attributes may be changed.

    A graph is not trusted: a node may have no inputs and no outputs, whatever its kind is.
    """

    def __init__(self, message: bytes) -> None:
        self.inputs: list[bytes] = []
        self.outputs: list[bytes] = []
        self.attributes: list[bytes] = []
        self.name = self.kind = self.domain = b""
        self._rest: list[bytes] = []
        for number, wire_type, start, value, end in fields(message):
            if wire_type != LENGTH_DELIMITED:
                self._rest.append(message[start:end])
            elif number == NODE_INPUT:
                self.inputs.append(message[value:end])
            elif number == NODE_OUTPUT:
                self.outputs.append(message[value:end])
            elif number == NODE_ATTRIBUTE:
                self.attributes.append(message[value:end])
            elif number == NODE_NAME:
                self.name = message[value:end]
            elif number == NODE_OP_TYPE:
                self.kind = message[value:end]
            elif number == NODE_DOMAIN:
                self.domain = ONNX if message[value:end] == b"ai.onnx" else message[value:end]
            else:
                self._rest.append(message[start:end])

    def input(self, index: int) -> bytes:
        """Return the name of an input; empty where the node does not have it."""
        return self.inputs[index] if index < len(self.inputs) else b""

    def output(self, index: int) -> bytes:
        """Return the name of an output; empty where the node does not have it."""
        return self.outputs[index] if index < len(self.outputs) else b""

    def is_a(self, kind: bytes, domain: bytes = ONNX) -> bool:
        """Return True for a node of this operator."""
        return (self.kind, self.domain) == (kind, domain)

    def named(self, name: bytes) -> list[bytes]:
        """Return the serialized attribute of this name in a list, which is empty where there is none."""
        return [one for one in self.attributes if texts(one, ATTRIBUTE_NAME) == [name]]

    def integers(self, name: bytes) -> list[int]:
        """Return the value of the integer attribute of this name in a list, which is empty where there is none."""
        return [value for attribute in self.named(name) for value in integers(attribute, ATTRIBUTE_INT)]

    def add_integer(self, name: bytes, value: int) -> None:
        """Add an attribute with an integer value."""
        self.attributes.append(
            delimited(ATTRIBUTE_NAME, name) + integer(ATTRIBUTE_INT, value) + integer(ATTRIBUTE_TYPE, TYPE_INT)
        )

    def message(self) -> bytes:
        """Return the serialized node."""
        parts = [delimited(NODE_INPUT, name) for name in self.inputs]
        parts += [delimited(NODE_OUTPUT, name) for name in self.outputs]
        if self.name:
            parts.append(delimited(NODE_NAME, self.name))
        parts.append(delimited(NODE_OP_TYPE, self.kind))
        if self.domain:
            parts.append(delimited(NODE_DOMAIN, self.domain))
        parts += self._rest
        parts += [delimited(NODE_ATTRIBUTE, attribute) for attribute in self.attributes]
        return b"".join(parts)


def with_suffix(attribute: bytes, suffix: bytes) -> bytes:
    """Return a serialized attribute with ``suffix`` added to its name."""
    return edit(attribute, ATTRIBUTE_NAME, lambda name: name + suffix)


class Graph:
    """A ``GraphProto`` with parsed nodes, which may be changed; ``rest`` has the other fields, serialized.

    Raises:
        ValueError: the bytes are not a graph.
    """

    def __init__(self, message: bytes) -> None:
        self.nodes: list[Node] = []
        rest = []
        for field in fields(message):
            if field.number == GRAPH_NODE:
                self.nodes.append(Node(message[field.value : field.end]))
            else:
                rest.append(message[field.start : field.end])
        self.rest = b"".join(rest)

    def makers(self) -> dict[bytes, Node]:
        """Return the node that computes each value.

        Raises:
            ValueError: two nodes compute the same value.
        """
        found: dict[bytes, Node] = {}
        for node in self.nodes:
            for name in node.outputs:
                if name in found:
                    raise ValueError(f"two nodes compute {name.decode(errors='replace')}")
                if name:
                    found[name] = node
        return found

    def used(self) -> dict[bytes, int]:
        """Return how often each value is read, by nodes or as an output of the graph."""
        count: dict[bytes, int] = {}
        outputs = [name for value in texts(self.rest, GRAPH_OUTPUT) for name in texts(value, VALUE_NAME)]
        for name in (*outputs, *(name for node in self.nodes for name in node.inputs)):
            count[name] = count.get(name, 0) + 1
        return count

    def readers(self) -> dict[bytes, list[Node]]:
        """Return the nodes that read each value."""
        found: dict[bytes, list[Node]] = {}
        for node in self.nodes:
            for name in node.inputs:
                found.setdefault(name, []).append(node)
        return found

    def drop(self, nodes: Iterable[Node]) -> None:
        """Remove nodes."""
        gone = {id(node) for node in nodes}
        self.nodes = [node for node in self.nodes if id(node) not in gone]

    def sort(self) -> None:
        """Sort nodes topologically: each after the nodes that compute its inputs, otherwise in their order.

        Raises:
            ValueError: two nodes compute the same value.
        """
        makers, visited, order = self.makers(), set[int](), list[Node]()
        for first in self.nodes:
            path = [] if id(first) in visited else [(first, iter(first.inputs))]  # nodes that wait for the last one
            visited.add(id(first))
            while path:
                _, names = path[-1]
                found = (makers[name] for name in names if name in makers)
                maker = next((one for one in found if id(one) not in visited), None)
                if maker is None:
                    order.append(path.pop()[0])
                else:
                    visited.add(id(maker))
                    path.append((maker, iter(maker.inputs)))
        self.nodes = order

    def message(self) -> bytes:
        """Return the serialized graph."""
        return b"".join([delimited(GRAPH_NODE, node.message()) for node in self.nodes]) + self.rest


Change = Callable[[Graph], None]


def changed_graph(graph: Path, weights: Path, changes: Sequence[Change]) -> tuple[bytes, Path]:
    """Return the graph in a file with all changes, and the folder of its weights.

    The file of the weights may be a link out of the artifact's folder, as in the hub's cache. ONNX Runtime does not
    follow it for a graph in memory, so the bytes name the link's target.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not a graph, or one that a change cannot be applied to.
    """
    data = weights.resolve()
    location = delimited(ENTRY_KEY, b"location") + delimited(ENTRY_VALUE, data.name.encode())

    def relocate(entry: bytes) -> bytes:
        named = texts(entry, ENTRY_KEY) == [b"location"] and texts(entry, ENTRY_VALUE) == [weights.name.encode()]
        return location if named else entry

    def change(message: bytes) -> bytes:
        parsed = Graph(message)
        for one in changes:
            one(parsed)
        if data.name != weights.name:
            parsed.rest = edit(
                parsed.rest, GRAPH_INITIALIZER, lambda tensor: edit(tensor, TENSOR_EXTERNAL_DATA, relocate)
            )
        return parsed.message()

    model = graph.read_bytes()
    functions = [(texts(one, FUNCTION_DOMAIN), texts(one, FUNCTION_NAME)) for one in texts(model, MODEL_FUNCTIONS)]
    known = [[name.encode()] for name in JOIN_BITS]
    if len(texts(model, MODEL_GRAPH)) != 1 or any(list(function) != known for function in functions):
        raise ValueError(f"a model has one graph, and no operators that it defines itself but {'::'.join(JOIN_BITS)}")
    return edit(model, MODEL_GRAPH, change), data.parent
