"""Models of a few nodes, made in memory without the onnx package."""

from collections.abc import Mapping, Sequence

from .graph import (
    ATTRIBUTE_NAME,
    ATTRIBUTE_TYPE,
    GRAPH_INPUT,
    GRAPH_NODE,
    GRAPH_OUTPUT,
    MODEL_GRAPH,
    TENSOR_DATA_TYPE,
    TYPE_TENSOR,
    TYPE_TENSOR_ELEMENT,
    VALUE_NAME,
    VALUE_TYPE,
    Node,
)
from .wire import delimited, integer

# Field numbers of onnx.proto, and the versions that are written.
MODEL_IR_VERSION, MODEL_OPSET, OPSET_VERSION, GRAPH_NAME = 1, 8, 2, 2
ATTRIBUTE_TENSOR, TYPE_IS_TENSOR = 5, 4
TYPE_TENSOR_SHAPE, SHAPE_DIMENSION = 2, 1
TENSOR_DIMENSIONS, TENSOR_RAW_DATA = 1, 9
IR_VERSION, OPSET = 10, 21

INT64 = 7  # an element type


def operation(kind: str, inputs: Sequence[str], output: str, **attributes: int) -> Node:
    """Return a node of an operator of ai.onnx with one output and integer attributes, 0 or more."""
    node = Node(b"")
    node.kind = kind.encode()
    node.inputs = [name.encode() for name in inputs]
    node.outputs = [output.encode()]
    for name, value in attributes.items():
        node.add_integer(name.encode(), value)
    return node


def zeros(shape: str, output: str, element_type: int, width: int) -> Node:
    """Return a node that computes zeros of the shape in an input, int64 [rank].

    Args:
        width: bytes of an element.
    """
    node = operation("ConstantOfShape", [shape], output)
    zero = integer(TENSOR_DIMENSIONS, 1) + integer(TENSOR_DATA_TYPE, element_type)
    zero += delimited(TENSOR_RAW_DATA, bytes(width))
    node.attributes.append(
        delimited(ATTRIBUTE_NAME, b"value")
        + delimited(ATTRIBUTE_TENSOR, zero)
        + integer(ATTRIBUTE_TYPE, TYPE_IS_TENSOR)
    )
    return node


def small_model(
    nodes: Sequence[Node], inputs: Mapping[str, tuple[int, int]], outputs: Mapping[str, tuple[int, int]]
) -> bytes:
    """Return a serialized model of nodes in topological order; inputs and outputs have an element type and a rank."""
    graph = b"".join(delimited(GRAPH_NODE, node.message()) for node in nodes) + delimited(GRAPH_NAME, b"small")
    for field, values in ((GRAPH_INPUT, inputs), (GRAPH_OUTPUT, outputs)):
        for name, (element_type, rank) in values.items():
            shape = delimited(TYPE_TENSOR_SHAPE, delimited(SHAPE_DIMENSION, b"") * rank)
            tensor = delimited(TYPE_TENSOR, integer(TYPE_TENSOR_ELEMENT, element_type) + shape)
            graph += delimited(field, delimited(VALUE_NAME, name.encode()) + delimited(VALUE_TYPE, tensor))
    opset = delimited(MODEL_OPSET, integer(OPSET_VERSION, OPSET))
    return integer(MODEL_IR_VERSION, IR_VERSION) + opset + delimited(MODEL_GRAPH, graph)
