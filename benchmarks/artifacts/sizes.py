"""Bytes of an artifact: on disk, and those that one decode step reads."""

import json
import math
import struct
from pathlib import Path

from intaglio.artifact import read_manifest

from .graph_bytes import onnx_bytes
from .variants import Variant


def disk_bytes(variant: Variant, path: Path) -> int:
    """Return the bytes on disk; of transformers' checkpoint, which may store several forms of a model, the weights'."""
    if variant.tool == "transformers":
        return sum(file.stat().st_size for file in path.glob("*.safetensors"))
    return path.stat().st_size if path.is_file() else sum(f.stat().st_size for f in path.rglob("*") if f.is_file())


def step_bytes(variant: Variant, path: Path) -> int:
    """Return the bytes of weights that a decode step reads.

    OpenVINO and CTranslate2 keep them in one file; a tied embedding is the LM head's matrix too, and is read as that.
    """
    match variant.tool:
        case "transformers":
            return 4 * sum(_elements(file) for file in path.glob("*.safetensors"))
        case "CTranslate2":
            return (path / "model.bin").stat().st_size
        case "OpenVINO":
            return (path / "openvino_model.bin").stat().st_size
        case "llama.cpp" | "llama.cpp-avx2" | "ik_llama.cpp" | "ik_llama.cpp-avx2":
            return _gguf_bytes(path)
        case "intaglio":
            return onnx_bytes(path / read_manifest(path).graph)
        case _:
            return onnx_bytes(path / "model.onnx")


def kv_bytes(checkpoint: Path, positions: int) -> int:
    """Return the bytes of a float32 KV cache."""
    config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    heads = config["num_attention_heads"]
    width = config.get("head_dim") or config["hidden_size"] // heads
    return int(2 * config["num_hidden_layers"] * config.get("num_key_value_heads", heads) * width * 4 * positions)


def _elements(file: Path) -> int:
    """Count the elements of a safetensors file; an embedding beside an LM head is looked up in, not read."""
    with file.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        header = json.loads(stream.read(length))
    header.pop("__metadata__", None)
    skipped = "embed_tokens.weight" if "lm_head.weight" in header else None
    return sum(math.prod(entry["shape"]) for name, entry in header.items() if not skipped or skipped not in name)


def _gguf_bytes(path: Path) -> int:
    """Return the bytes of a GGUF file's tensors; without the gguf package the file's, which are a little more."""
    try:
        import gguf  # pyright: ignore[reportMissingImports]  (of llama.cpp's environment)
    except ImportError:
        return path.stat().st_size
    tensors = {str(tensor.name): int(tensor.n_bytes) for tensor in gguf.GGUFReader(path).tensors}
    if "output.weight" in tensors:
        del tensors["token_embd.weight"]
    return sum(tensors.values())
