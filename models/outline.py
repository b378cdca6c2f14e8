"""A checkpoint of which config.json alone is at hand: the tensors that it has, without their values."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NoReturn

import torch
from torch import Tensor

from ..artifact import Task
from ..errors import CheckpointError
from .checkpoint import CONFIG, architecture_of, with_attention
from .config import ConfigReader
from .heads import build, trunk_path
from .reading.custom_code import check_custom_code, custom_code
from .reading.options import ReadOptions
from .weight_source import CHUNK_BYTES, LM_HEAD, TensorInfo

DTYPE = "BF16"
"""What tensors are taken to be stored in."""


class Outline:
    """A source of weights that has no values: its ``tensors`` follow from config.json."""

    def __init__(self, folder: Path, options: ReadOptions) -> None:
        """Read config.json.

        Raises:
            CheckpointError, UnsupportedError: as ``Checkpoint``, as far as it follows from config.json.
        """
        self.folder = self.text_folder = folder
        reader = ConfigReader.open(folder)
        self.task: Task
        _, family, self.task = architecture_of(reader)
        self.config = with_attention(family.parse(reader), options.attention, reader.where)
        check_custom_code(custom_code(reader.get("auto_map"), reader.where), options, reader.where)
        with torch.device("meta"):
            module = build(self.config, self.task)
        self.trunk_prefix = trunk_path(self.task)
        self.tensors: Mapping[str, TensorInfo] = {
            name: TensorInfo(folder / CONFIG, DTYPE, tuple(value.shape))
            for name, value in module.state_dict().items()
            if not (name == LM_HEAD and self.config.tie_word_embeddings)
        }

    def tensor(self, name: str) -> Tensor:
        self._refuse()

    def rows(self, name: str, chunk_bytes: int = CHUNK_BYTES) -> Iterable[tuple[int, Tensor]]:
        self._refuse()

    def columns(self, name: str, start: int, stop: int) -> Tensor:
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise CheckpointError(f"{self.folder} has no weights; fetch the whole checkpoint")
