"""``model.onnx`` changed on its way from the file to ONNX Runtime."""

from collections.abc import Callable, Sequence
from pathlib import Path

from ..artifact import DATA, GRAPH
from .protobuf import delimited, edit, texts

Change = Callable[[bytes], bytes]
"""From a serialized ``GraphProto`` to another."""

# Field numbers of onnx.proto.
MODEL_GRAPH = 7
GRAPH_NODE, GRAPH_INITIALIZER, GRAPH_OUTPUT = 1, 5, 12
NODE_INPUT, NODE_OUTPUT, NODE_OP_TYPE, NODE_ATTRIBUTE = 1, 2, 4, 5
ATTRIBUTE_NAME, ATTRIBUTE_INT, ATTRIBUTE_TYPE, TYPE_INT = 1, 3, 20, 2
TENSOR_DATA_TYPE, TENSOR_NAME, TENSOR_EXTERNAL_DATA = 2, 8, 13
ENTRY_KEY, ENTRY_VALUE = 1, 2
VALUE_NAME = 1
FLOAT, FLOAT16 = 1, 10  # element types


def changed_graph(folder: Path, changes: Sequence[Change]) -> tuple[bytes, Path]:
    """The artifact's graph with all changes, and the folder where its weights lie.

    The weights' file may be a link out of the folder, as in the hub's cache. A graph in memory may not follow it, so
    that the bytes name the file that it leads to.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no graph.
    """
    data = (folder / DATA).resolve()
    location = delimited(ENTRY_KEY, b"location") + delimited(ENTRY_VALUE, data.name.encode())

    def relocate(entry: bytes) -> bytes:
        named = texts(entry, ENTRY_KEY) == [b"location"] and texts(entry, ENTRY_VALUE) == [DATA.encode()]
        return location if named else entry

    def change(graph: bytes) -> bytes:
        for one in changes:
            graph = one(graph)
        if data.name == DATA:
            return graph
        return edit(graph, GRAPH_INITIALIZER, lambda tensor: edit(tensor, TENSOR_EXTERNAL_DATA, relocate))

    return edit((folder / GRAPH).read_bytes(), MODEL_GRAPH, change), data.parent
