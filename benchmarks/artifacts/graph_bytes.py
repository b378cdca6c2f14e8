"""Bytes of weights that a decode step of an ONNX graph reads."""

from collections.abc import Set
from pathlib import Path

import numpy as np
import onnx
import onnx_ir

LOOKUPS = {"Gather", "GatherBlockQuantized"}
VIEWS = {"Reshape", "Transpose", "Identity"}
SCALES = {"MatMulNBits": 2}  # ONNX Runtime packs this input as float32, whatever its type
COS, SIN = 7, 8  # inputs of GroupQueryAttention; a step reads one row of each


def onnx_bytes(graph: Path) -> int:
    """Return the bytes of all initializers that a decode step reads whole; lookups read rows only.

    Initializers that share bytes of the file count once.
    """
    found: dict[object, int] = {}
    model = onnx.load(graph, load_external_data=False)
    for value in onnx_ir.from_proto(model).graph.initializers.values():
        tensor = value.const_value
        if tensor is not None and readers(value):
            key = (tensor.location, tensor.offset) if isinstance(tensor, onnx_ir.ExternalTensor) else value.name
            found[key] = _read_bytes(value, tensor)
    return sum(found.values())


def bytes_of_nodes(model: onnx.ModelProto) -> dict[tuple[str, str], int]:
    """Return the stored bytes of initializers that each node reads whole, by the node's name and operator.

    Casts of initializers are folded when a session is made, so that their reader counts.
    """
    found: dict[tuple[str, str], int] = {}
    for value in onnx_ir.from_proto(model).graph.initializers.values():
        tensor = value.const_value
        if tensor is None:
            continue
        for node, _ in readers(value, VIEWS | {"Cast"}):
            key = (node.name or "", node.op_type)
            found[key] = found.get(key, 0) + tensor.nbytes
    return found


def readers(value: onnx_ir.Value, through: Set[str] = VIEWS) -> list[tuple[onnx_ir.Node, int]]:
    """Return the nodes that read the whole of a value, with the input's index, looking ``through`` some operators."""
    found: list[tuple[onnx_ir.Node, int]] = []
    for node, index in value.uses():
        looked_up = node.op_type in LOOKUPS or (node.op_type == "GroupQueryAttention" and index in (COS, SIN))
        if node.op_type in through:
            found += readers(node.outputs[0], through) if index == 0 else []
        elif not looked_up:
            found.append((node, index))
    return found


def _read_bytes(value: onnx_ir.Value, tensor: onnx_ir.TensorProtocol) -> int:
    width = max((4 for node, index in readers(value) if SCALES.get(node.op_type) == index), default=0)
    return max(tensor.nbytes, int(np.prod(tensor.shape.numpy())) * width)
