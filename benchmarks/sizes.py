"""Bytes of a model: of its folder, of its weights, and those that one decode step reads."""

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
    model = onnx_ir.from_proto(onnx.load(graph, load_external_data=False))
    found: dict[object, int] = {}
    for value in model.graph.initializers.values():
        tensor, width = value.const_value, 0
        if tensor is None or not any(True for _ in _readers(value)):
            continue
        for node, index in _readers(value):
            width = max(width, 4 if SCALES.get(node.op_type) == index else 0)
        count = int(np.prod(tensor.shape.numpy()))
        size = max(tensor.nbytes, count * width)
        external = isinstance(tensor, onnx_ir.ExternalTensor)
        found[(tensor.location, tensor.offset) if external else value.name] = size
    return sum(found.values())


def _readers(value: onnx_ir.Value) -> list[tuple[onnx_ir.Node, int]]:
    """The nodes, and their input, that read the whole of a value, through changes of shape."""
    readers = []
    for node, index in value.uses():
        looked_up = node.op_type in LOOKUPS or (node.op_type == "GroupQueryAttention" and index in (COS, SIN))
        if node.op_type in VIEWS:
            readers += _readers(node.outputs[0])
        elif not looked_up:
            readers.append((node, index))
    return readers


def _gguf(path: Path) -> int:
    import gguf

    tensors = {str(tensor.name): int(tensor.n_bytes) for tensor in gguf.GGUFReader(path).tensors}
    if "output.weight" in tensors:
        del tensors["token_embd.weight"]
    return sum(tensors.values())
