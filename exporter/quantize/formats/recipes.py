"""Recipes of a quantized weight: its codes, its scales and its zero points are three initializers made in one pass."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from safetensors import safe_open
from torch import Tensor

from ....artifact import Quantization
from ....models.checkpoint import Checkpoint
from ...weights import Stacked, Stored
from ..methods.finite import check_quantizable
from ..methods.rtn import round_to_nearest
from .blocks import BlockFormat, Blocks

CHUNK = 1 << 20
"""Weights that are rounded at once: with a search's temporaries they still fit a processor's cache."""


class BlockSource(Protocol):
    """Where the blocks of a weight [N, K] come from."""

    @property
    def inner(self) -> Stored | Stacked: ...

    @property
    def format(self) -> BlockFormat: ...

    @property
    def method(self) -> str: ...

    def blocks(self, checkpoint: Checkpoint) -> Iterator[tuple[Tensor, Blocks]]:
        """Consecutive rows: the weight, and what it became."""
        ...


@dataclass(frozen=True)
class Rounded:
    """Rounded to the nearest on the way from the checkpoint."""

    inner: Stored | Stacked
    format: BlockFormat
    importance: Tensor | None = None
    method: str = "rtn"

    def blocks(self, checkpoint: Checkpoint) -> Iterator[tuple[Tensor, Blocks]]:
        for piece in self.inner.pieces(checkpoint):
            for rows in torch.split(piece, max(1, CHUNK // piece.shape[1])):
                weight = rows.float()
                check_quantizable(weight, *self.inner.sources)
                yield weight, round_to_nearest(weight, self.format, self.importance)


@dataclass(frozen=True)
class Solved:
    """Solved beforehand, one file of ``codes``, ``scales`` and ``zero_points`` for each tensor of the checkpoint."""

    inner: Stored | Stacked
    format: BlockFormat
    folder: Path
    method: str

    def blocks(self, checkpoint: Checkpoint) -> Iterator[tuple[Tensor, Blocks]]:
        for part in self.inner.parts if isinstance(self.inner, Stacked) else (self.inner,):
            start = 0
            for piece in part.pieces(checkpoint):
                for weight in torch.split(piece, max(1, CHUNK // piece.shape[1])):
                    rows = slice(start, start + len(weight))
                    start = rows.stop
                    with safe_open(solved_file(self.folder, part.name), "pt") as file:
                        found = [file.get_slice(name)[rows] for name in ("codes", "scales", "zero_points")]
                    yield weight.float(), Blocks(self.format, *found)


def solved_file(folder: Path, tensor: str) -> Path:
    return folder / f"{tensor}.safetensors"


class Quantized:
    """One weight on its way. The codes are streamed first; scales and zero points wait for their turn, being small.

    ``accuracy_level`` is MatMulNBits': 4 computes with int8 activations, 0 with float ones.
    """

    def __init__(self, source: BlockSource, accuracy_level: int, damage: float | None = None) -> None:
        self.source = source
        self.damage = damage
        self.format = source.format
        self.accuracy_level = accuracy_level
        self.shape = self._shape()
        self.blocks = self.format.blocks(self.shape[1])
        self._aside: dict[str, Tensor] = {}
        self._error = 0.0
        self._power = 0.0

    def _shape(self) -> tuple[int, int]:
        rows, columns = self.source.inner.shape
        return rows, columns

    @property
    def codes(self) -> "Codes":
        return Codes(self)

    @property
    def scales(self) -> "Scales":
        return Scales(self)

    @property
    def zero_points(self) -> "ZeroPoints":
        return ZeroPoints(self)

    @property
    def facts(self) -> Quantization:
        """What the manifest says; complete once the codes have been streamed."""
        return Quantization(
            bits=self.format.bits,
            block_size=self.format.block_size,
            symmetric=self.format.symmetric,
            method=self.source.method,
            accuracy_level=self.accuracy_level,
            error=(self._error / self._power) ** 0.5 if self._power else 0.0,
            damage=self.damage,
        )

    def stream(self, checkpoint: Checkpoint) -> Iterator[Tensor]:
        """The packed codes by rows; scales and zero points are put aside on the way."""
        aside = {"scales": torch.empty(self.shape[0], self.blocks)}
        if not self.format.symmetric:
            aside["zero_points"] = torch.empty(self.zero_points.shape, dtype=torch.uint8)
        self._error = self._power = 0.0
        start = 0
        for weight, blocks in self.source.blocks(checkpoint):
            rows = slice(start, start + len(weight))
            start = rows.stop
            self._power += weight.square().sum().item()
            self._error += blocks.dequantize().sub_(weight).square_().sum().item()
            aside["scales"][rows] = blocks.scales
            if not self.format.symmetric:
                aside["zero_points"][rows] = blocks.packed_zero_points()
            yield blocks.packed_codes()
        self._aside = aside

    @property
    def aside(self) -> dict[str, Tensor]:
        """``scales``, and packed ``zero_points`` where there are any."""
        assert self._aside, "the codes are written before their scales"
        return self._aside

    def forget(self) -> None:
        """Let go of what was put aside: that of all weights together is a quarter of the artifact."""
        self._aside = {}


@dataclass(frozen=True)
class Codes:
    """uint8 [N, KB, block_size * bits / 8]."""

    weight: Quantized

    @property
    def shape(self) -> tuple[int, ...]:
        size = self.weight.format.block_size * self.weight.format.bits // 8
        return (self.weight.shape[0], self.weight.blocks, size)

    @property
    def sources(self) -> tuple[str, ...]:
        return self.weight.source.inner.sources

    def pieces(self, checkpoint: Checkpoint) -> Iterator[Tensor]:
        return self.weight.stream(checkpoint)


@dataclass(frozen=True)
class Scales:
    """[N, KB]."""

    weight: Quantized

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.weight.shape[0], self.weight.blocks)

    @property
    def sources(self) -> tuple[str, ...]:
        return ()

    def pieces(self, checkpoint: Checkpoint) -> Iterator[Tensor]:
        yield self.weight.aside["scales"]


@dataclass(frozen=True)
class ZeroPoints:
    """uint8 [N, ceil(KB * bits / 8)]."""

    weight: Quantized

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.weight.shape[0], -(-self.weight.blocks * self.weight.format.bits // 8))

    @property
    def sources(self) -> tuple[str, ...]:
        return ()

    def pieces(self, checkpoint: Checkpoint) -> Iterator[Tensor]:
        yield self.weight.aside["zero_points"]
