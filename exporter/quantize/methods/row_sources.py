"""The two sources of quantized rows: rounded on the way from the checkpoint, or solved beforehand."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from ....models.weight_source import WeightSource
from ...weights import Stacked, Stored
from ..formats.blocks import QuantizedRows
from ..formats.scheme import Scheme
from .finite import check_quantizable
from .rtn import round_to_nearest

CHUNK = 1 << 20
"""Weights that are rounded at once: with a search's temporaries they still fit a processor's cache."""

STREAMS = ("codes", "scales", "zero_points")


@dataclass(frozen=True)
class Rounded:
    """Rows rounded to the nearest."""

    inner: Stored | Stacked
    scheme: Scheme

    def rows(self, checkpoint: WeightSource) -> Iterator[tuple[Tensor, QuantizedRows]]:
        for rows in _chunks(self.inner, checkpoint):
            weight = rows.float()
            check_quantizable(weight, *self.inner.sources)
            yield weight, round_to_nearest(weight, self.scheme.format)


@dataclass(frozen=True)
class Solved:
    """Rows that ``save_solved`` stored in ``folder``."""

    inner: Stored | Stacked
    scheme: Scheme
    folder: Path

    def rows(self, checkpoint: WeightSource) -> Iterator[tuple[Tensor, QuantizedRows]]:
        for part in self.inner.parts if isinstance(self.inner, Stacked) else (self.inner,):
            start = 0
            for weight in _chunks(part, checkpoint):
                rows = slice(start, start + len(weight))
                start = rows.stop
                with safe_open(_solved_file(self.folder, part.name), "pt") as file:
                    found = [file.get_slice(name)[rows] for name in STREAMS]
                yield weight.float(), QuantizedRows(self.scheme.format, *found)


def save_solved(folder: Path, tensor: str, pieces: Sequence[QuantizedRows]) -> None:
    """Store the quantized rows of a whole tensor of the checkpoint in a file of its own."""
    content = {name: torch.cat([getattr(piece, name) for piece in pieces]) for name in STREAMS}
    save_file(content, _solved_file(folder, tensor))


def _solved_file(folder: Path, tensor: str) -> Path:
    return folder / f"{tensor}.safetensors"


def _chunks(weight: Stored | Stacked, checkpoint: WeightSource) -> Iterator[Tensor]:
    for piece in weight.pieces(checkpoint):
        yield from torch.split(piece, max(1, CHUNK // piece.shape[1]))
