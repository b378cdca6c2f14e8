"""A source of weights: one model's tensors by their names in the checkpoint, read a part at a time."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from ..artifact import Task
from ..errors import CheckpointError
from .config import ModelConfig
from .dtypes import SAFETENSORS_DTYPES

CHUNK_BYTES = 1 << 26
LM_HEAD = "lm_head.weight"
TRUNK_PREFIXES = ("model.", "transformer.", "")


@dataclass(frozen=True)
class TensorInfo:
    """The file that holds a tensor, its dtype as safetensors names it, and its shape."""

    file: Path
    dtype: str
    shape: tuple[int, ...]


class WeightSource(Protocol):
    """The weights of one model.

    A checkpoint, a checkpoint with other numbers in some of its tensors, and an unquantized artifact are sources. What
    only needs to read weights takes a source; nothing but ``tensor``, ``rows`` and ``columns`` reads any.
    """

    @property
    def folder(self) -> Path:
        """The folder, for messages."""
        ...

    @property
    def text_folder(self) -> Path:
        """The folder of the tokenizer."""
        ...

    @property
    def config(self) -> ModelConfig:
        """The parsed config.json."""
        ...

    @property
    def task(self) -> Task:
        """The task that the weights are for."""
        ...

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """Every tensor by its name in the checkpoint."""
        ...

    @property
    def trunk_prefix(self) -> str:
        """The prefix of the trunk's tensors, as ``find_trunk`` returns it."""
        ...

    def tensor(self, name: str) -> Tensor:
        """Return a whole tensor in memory of its own."""
        ...

    def rows(self, name: str, chunk_bytes: int = CHUNK_BYTES) -> Iterable[tuple[int, Tensor]]:
        """Yield a tensor in chunks of whole rows, as (first row, chunk), each of about ``chunk_bytes`` at most."""
        ...

    def columns(self, name: str, start: int, stop: int) -> Tensor:
        """Return the columns ``start`` to ``stop`` of a matrix."""
        ...


def row_ranges(info: TensorInfo, chunk_bytes: int) -> Iterator[tuple[int, int]]:
    """Yield (first row, row after the last) of each chunk of at most ``chunk_bytes``, and of at least one row."""
    row_bytes = max(1, torch.Size(info.shape[1:]).numel() * SAFETENSORS_DTYPES[info.dtype].itemsize)
    step = max(1, chunk_bytes // row_bytes)
    for start in range(0, info.shape[0], step):
        yield start, min(start + step, info.shape[0])


def find_trunk(tensors: Iterable[str], folder: Path) -> str:
    """Return the prefix of the trunk's tensors, which is that of the embedding.

    Raises:
        CheckpointError: no tensor is an embedding.
    """
    names = set(tensors)
    for prefix in TRUNK_PREFIXES:
        if f"{prefix}embed_tokens.weight" in names:
            return prefix
    raise CheckpointError(
        f"{folder}: no tensor model.embed_tokens.weight, transformer.embed_tokens.weight or "
        "embed_tokens.weight; the weight files belong to another architecture or are incomplete"
    )
