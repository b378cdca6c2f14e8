"""Bytes of a model: of its folder, of its weights, and those that one decode step reads."""

from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx_ir

LOOKUPS = {"Gather", "GatherBlockQuantized"}
VIEWS = {"Reshape", "Transpose", "Identity"}
SCALES = {"MatMulNBits": 2}  # ONNX Runtime packs these inputs as float32, whatever they are stored as
COS, SIN = 7, 8  # inputs of GroupQueryAttention of which a step reads a row


@dataclass(frozen=True)
class Sizes:
    folder: int
    weights: int
    per_token: int


def sizes(path: Path) -> Sizes:
    """Of an ONNX folder, a GGUF file or an OpenVINO folder; ``weights`` is the file or files that hold them."""
    if path.suffix == ".gguf":
        return Sizes(path.stat().st_size, path.stat().st_size, _gguf(path))
    files = {file.name: file.stat().st_size for file in path.iterdir() if file.is_file()}
    folder = sum(files.values())
    if "openvino_model.bin" in files:
        size = files["openvino_model.bin"]
        return Sizes(folder, size, size)  # the tied embedding is the head's matrix too, and is read as that
    weights = sum(size for name, size in files.items() if name.startswith("model.onnx.data"))
    return Sizes(folder, weights, onnx_bytes(path / "model.onnx"))


def onnx_bytes(graph: Path) -> int:
    """Bytes of all initializers that a decode step reads whole: all but those that only rows are looked up in.

    Initializers that lie in the same bytes of the file count once.
    """
    found: dict[object, int] = {}
    model = onnx.load(graph, load_external_data=False)
    for value in onnx_ir.from_proto(model).graph.initializers.values():
        tensor = value.const_value
        if tensor is not None and readers(value):
            external = isinstance(tensor, onnx_ir.ExternalTensor)
            found[(tensor.location, tensor.offset) if external else value.name] = _read_bytes(value)
    return sum(found.values())


def bytes_of_nodes(model: onnx.ModelProto) -> dict[tuple[str, str], int]:
    """Bytes of initializers, as they are stored, that each node reads whole, by its name and operator.

    What is cast on the way is the reader's: casts of initializers are folded when a session is made.
    """
    found: dict[tuple[str, str], int] = {}
    for value in onnx_ir.from_proto(model).graph.initializers.values():
        tensor = value.const_value
        for node, _ in readers(value, VIEWS | {"Cast"}) if tensor is not None else []:
            key = (node.name or "", node.op_type)
            found[key] = found.get(key, 0) + tensor.nbytes
    return found


def _read_bytes(value: onnx_ir.Value) -> int:
    """Bytes of an initializer as a step reads them."""
    tensor = value.const_value
    assert tensor is not None
    width = max((4 for node, index in readers(value) if SCALES.get(node.op_type) == index), default=0)
    return max(tensor.nbytes, int(np.prod(tensor.shape.numpy())) * width)


def readers(value: onnx_ir.Value, through: Set[str] = VIEWS) -> list[tuple[onnx_ir.Node, int]]:
    """The nodes, and which input of theirs, that read the whole of a value, ``through`` other operators."""
    found = []
    for node, index in value.uses():
        looked_up = node.op_type in LOOKUPS or (node.op_type == "GroupQueryAttention" and index in (COS, SIN))
        if node.op_type in through:
            found += readers(node.outputs[0], through) if index == 0 else []
        elif not looked_up:
            found.append((node, index))
    return found


def _gguf(path: Path) -> int:
    import gguf

    tensors = {str(tensor.name): int(tensor.n_bytes) for tensor in gguf.GGUFReader(path).tensors}
    if "output.weight" in tensors:
        del tensors["token_embd.weight"]
    return sum(tensors.values())
