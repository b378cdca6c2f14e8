"""What an artifact computed from the config and stored: the tables and frequencies of rotary embeddings."""

from collections.abc import Mapping
from pathlib import Path

import onnx_ir as ir

from ..artifact import Manifest
from ..models.config import ModelConfig
from .result import TensorError


def computed(
    folder: Path, manifest: Manifest, config: ModelConfig, values: Mapping[str, ir.Value]
) -> list[TensorError]:
    return []
