"""What an adapter adds to a weight [N, K], computed for a range of it in float64.

A product of matrices is computed in tiles of a fixed grid over the weight, whatever range is asked for: parts of a
weight are then bit for bit those of the whole, in the export and in a later audit.

LoRA: Hu et al., arXiv 2106.09685. LoHa and LoKr: Yeh et al., arXiv 2309.14859.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from ...errors import CheckpointError
from ..storage.safetensors_files import read_tensor

TILE = 256
"""Rows and columns of a tile."""


@dataclass(frozen=True)
class Stored:
    """A tensor in an adapter's file, its dtype as safetensors names it; ``transposed``: its transpose is meant."""

    file: Path
    name: str
    dtype: str
    shape: tuple[int, ...]
    transposed: bool = False

    def read(self, rows: range | None = None, columns: range | None = None) -> Tensor:
        """Return it, or a range of it, in float64.

        Raises:
            CheckpointError: it cannot be read, or has numbers that are not finite.
        """
        if self.transposed:
            part = read_tensor(self.file, self.name, columns, rows).t()
        else:
            part = read_tensor(self.file, self.name, rows, columns)
        part = part.to(torch.float64)
        if not torch.isfinite(part).all():
            raise CheckpointError(
                f"{self.file}: tensor {self.name} has values that are not finite; the adapter is damaged"
            )
        return part


class Term(Protocol):
    """A term of a sum over a weight [N, K]."""

    def part(self, rows: range, columns: range) -> Tensor:
        """Return a range of it, float64 [n, k]."""
        ...


@dataclass(frozen=True)
class LowRank:
    """``scale * left @ right``, of left [N, r] and right [r, K]."""

    left: Stored
    right: Stored
    scale: float
    shape: tuple[int, int]

    def part(self, rows: range, columns: range) -> Tensor:
        return self.scale * _product(self.left, self.right, self.shape, rows, columns)


@dataclass(frozen=True)
class Hadamard:
    """``scale * (left1 @ right1) * (left2 @ right2)``: LoHa."""

    pairs: tuple[tuple[Stored, Stored], tuple[Stored, Stored]]
    scale: float
    shape: tuple[int, int]

    def part(self, rows: range, columns: range) -> Tensor:
        first, second = (_product(left, right, self.shape, rows, columns) for left, right in self.pairs)
        return self.scale * first * second


@dataclass(frozen=True)
class Kronecker:
    """``scale`` times the Kronecker product of two matrices, each stored whole or as a product: LoKr."""

    outer: tuple[Stored, ...]
    inner: tuple[Stored, ...]
    scale: float

    def part(self, rows: range, columns: range) -> Tensor:
        outer, inner = (_whole(one) for one in (self.outer, self.inner))
        down, across = (torch.arange(one.start, one.stop) for one in (rows, columns))
        height, width = inner.shape
        large = outer[down // height][:, across // width]
        return self.scale * large * inner[down % height][:, across % width]


def _whole(factors: tuple[Stored, ...]) -> Tensor:
    first, *rest = (one.read() for one in factors)
    return first @ rest[0] if rest else first


def _product(left: Stored, right: Stored, shape: tuple[int, int], rows: range, columns: range) -> Tensor:
    """Return a range of ``left @ right``, float64, computed in whole tiles of the grid."""
    found = torch.empty(len(rows), len(columns), dtype=torch.float64)
    across = _aligned(columns, shape[1])
    matrix = right.read(columns=across)
    for strip in _tiles(_aligned(rows, shape[0])):
        part = left.read(rows=strip)
        inside = range(max(strip.start, rows.start), min(strip.stop, rows.stop))
        for tile in _tiles(across):
            both = range(max(tile.start, columns.start), min(tile.stop, columns.stop))
            product = part @ matrix[:, tile.start - across.start : tile.stop - across.start]
            found[
                inside.start - rows.start : inside.stop - rows.start,
                both.start - columns.start : both.stop - columns.start,
            ] = product[
                inside.start - strip.start : inside.stop - strip.start,
                both.start - tile.start : both.stop - tile.start,
            ]
    return found


def _aligned(wanted: range, length: int) -> range:
    """Return the tiles that a range touches, as one range."""
    return range(wanted.start // TILE * TILE, min(-(-wanted.stop // TILE) * TILE, length))


def _tiles(aligned: range) -> Iterator[range]:
    for start in range(aligned.start, aligned.stop, TILE):
        yield range(start, min(start + TILE, aligned.stop))
