"""A GGUF file opened: its tensors by a checkpoint's names, and a folder with the companions of a checkpoint."""

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...errors import CheckpointError
from ..quantized.weights import QuantizedWeights
from .companions import write_companions
from .config import read_config, read_expert_count, read_family
from .header import Header
from .names import EMBEDDING, ROPE_FACTORS, renamed
from .parts import Metadata, read_parts
from .rope import Floats
from .weights import GGUFTensors, quantized_weights, read_bytes


@dataclass(frozen=True)
class OpenedGGUF:
    """``folder``: a temporary one with config.json and the tokenizer, which ``remove`` deletes; ``notes`` for users."""

    files: tuple[Path, ...]
    folder: Path
    tensors: GGUFTensors
    quantized: QuantizedWeights
    notes: tuple[str, ...]


def open_gguf(path: Path) -> OpenedGGUF:
    """Open a GGUF file, or a part of a split one.

    Raises:
        CheckpointError: a file is missing, damaged or contradictory.
        UnsupportedError: another architecture, or what cannot be expressed.
    """
    files, header = read_parts(path)
    metadata = Metadata(header.metadata, str(path))
    family = read_family(metadata)
    stored = renamed(header.tensors, family, path, read_expert_count(metadata, family))
    if len(header.tensors[EMBEDDING].shape) != 2:
        raise CheckpointError(f"{path}: {EMBEDDING} is not a matrix; fetch the file again")
    config = read_config(metadata, family, header.tensors, _rope_factors(header, path))
    quantized = quantized_weights(stored)
    base = Path(tempfile.mkdtemp(prefix="intaglio-gguf-"))
    folder = base / path.name  # messages name the folder, and so the file
    try:
        folder.mkdir()
        notes = write_companions(metadata, family, config, folder)
    except BaseException:
        shutil.rmtree(base, ignore_errors=True)
        raise
    return OpenedGGUF(files, folder, GGUFTensors(stored), quantized, tuple(notes))


def remove(folder: Path) -> None:
    """Delete the folder of an opened file."""
    shutil.rmtree(folder.parent, ignore_errors=True)


def _rope_factors(header: Header, path: Path) -> Floats | None:
    tensor = header.tensors.get(ROPE_FACTORS)
    if tensor is None:
        return None
    if tensor.type.dtype != "F32" or len(tensor.shape) != 1:
        raise CheckpointError(f"{path}: {ROPE_FACTORS} is not a vector of float32; fetch the file again")
    factors = read_bytes(tensor, ROPE_FACTORS, None, None).view(np.float32).reshape(-1).astype(np.float64)
    if not (np.isfinite(factors) & (factors > 0)).all():
        raise CheckpointError(f"{path}: {ROPE_FACTORS} has factors that are not positive; fetch the file again")
    return factors
