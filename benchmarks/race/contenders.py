"""Who takes part: rows of rows.py by name, and two peers that only run.

To let another variant run, name its row with ``--row``; to add one, add it to rows.py.
"""

import json
import math
import struct
from pathlib import Path

from rows import BASELINE, OWN, PEERS, REFERENCE, Row
from sizes import sizes

CT2 = Row(
    "ctranslate2-int8",
    "int8",
    "8",
    "row",
    "CTranslate2",
    command=(
        *("-m", "ctranslate2.converters.transformers", "--model", "{source}"),
        *("--output_dir", "{out}", "--quantization", "int8", "--force"),
    ),
)
TRANSFORMERS = Row("transformers-fp32", "none", "32", "", "transformers")
ALL = {row.name: row for row in (*OWN, *PEERS, CT2, TRANSFORMERS)}

OURS = "int4"
DEFAULT = (OURS, "int8", REFERENCE, BASELINE, "openvino-int4", "llama-q4-0", CT2.name, TRANSFORMERS.name)
RIVALS = (BASELINE, "openvino-int4", "llama-q4-0")  # 4 bits as ours: what the default int4 is compared with
BATCHED = (OURS, BASELINE, "openvino-int4", CT2.name)


def folder_bytes(row: Row, path: Path) -> int:
    """Bytes on disk of an artifact; of a checkpoint, which holds several forms of a model, those of its weights."""
    if row.tool == "transformers":
        return sum(file.stat().st_size for file in path.glob("*.safetensors"))
    return path.stat().st_size if path.is_file() else sum(file.stat().st_size for file in path.iterdir())


def step_bytes(row: Row, path: Path) -> int:
    """Bytes of weights that a decode step must read."""
    if row.tool == "CTranslate2":
        return (path / "model.bin").stat().st_size
    if row.tool == "transformers":
        return 4 * sum(_elements(file) for file in path.glob("*.safetensors"))
    try:
        return sizes(path).per_token
    except ImportError:  # the gguf package is llama.cpp's environment's: the file is a little more than its weights
        return path.stat().st_size


def kv_bytes(checkpoint: Path, positions: int) -> int:
    """Bytes of keys and values in float32."""
    config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    heads = config["num_attention_heads"]
    width = config.get("head_dim") or config["hidden_size"] // heads
    return int(2 * config["num_hidden_layers"] * config.get("num_key_value_heads", heads) * width * 4 * positions)


def _elements(file: Path) -> int:
    """Elements of a safetensors file's tensors; a table beside its own LM head is only looked up in."""
    with file.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        header = json.loads(stream.read(length))
    header.pop("__metadata__", None)
    skipped = "embed_tokens.weight" if "lm_head.weight" in header else None
    return sum(math.prod(entry["shape"]) for name, entry in header.items() if not skipped or skipped not in name)
