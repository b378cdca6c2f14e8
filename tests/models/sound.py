"""Valid checkpoint folders to read, or to damage."""

import json
from pathlib import Path
from typing import Any

from intaglio.tests import tiny
from torch import Tensor

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
Q, EMBED = "model.layers.3.self_attn.q_proj.weight", "model.embed_tokens.weight"


def whole(folder: Path, task: str = "text-generation", **changes: Any) -> dict[str, Tensor]:
    """Write a valid single-file Qwen2 checkpoint to ``folder``; return its tensors."""
    values = tiny.config("qwen2", task, **changes)
    tiny.write(folder, values)
    return tiny.weights(values)


def sharded(folder: Path) -> dict[str, Any]:
    """Write a valid checkpoint of two files; return its index."""
    tiny.write(folder, tiny.config("qwen2"), shards=2)
    index: dict[str, Any] = json.loads((folder / INDEX).read_text())
    return index
