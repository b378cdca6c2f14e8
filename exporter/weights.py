"""Recipes: how an initializer of the graph is made from tensors of the checkpoint.

A recipe yields the initializer's values in pieces, in row-major order, so that a large tensor is never whole in
memory. Passes that rewrite the graph compose recipes (a packed projection is a ``Transposed`` ``Stacked``); a
quantized weight will be one more recipe.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ..models.checkpoint import Checkpoint

PIECE_BYTES = 1 << 26
"""About how much of a tensor is in memory at once, in the bytes of float32."""


class Recipe(Protocol):
    """How one initializer is made."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the checkpoint's tensors."""
        ...

    def pieces(self, checkpoint: Checkpoint) -> Iterator[Tensor]:
        """The values in row-major order, in pieces along the first dimension and in the stored dtype."""
        ...


@dataclass(frozen=True)
class Stored:
    """A tensor of the checkpoint as it is."""

    name: str
    shape: tuple[int, ...]

    @property
    def sources(self) -> tuple[str, ...]:
        return (self.name,)

    def pieces(self, checkpoint: Checkpoint) -> Iterator[Tensor]:
        return (piece for _, piece in checkpoint.rows(self.name, PIECE_BYTES // 2))

    def columns(self, checkpoint: Checkpoint, start: int, stop: int) -> Tensor:
        return checkpoint.columns(self.name, start, stop)


@dataclass(frozen=True)
class Stacked:
    """Tensors one below the other, along the first dimension: the rows of q, k and v as one projection's."""

    parts: tuple[Stored, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return (sum(part.shape[0] for part in self.parts), *self.parts[0].shape[1:])

    @property
    def sources(self) -> tuple[str, ...]:
        return tuple(part.name for part in self.parts)

    def pieces(self, checkpoint: Checkpoint) -> Iterator[Tensor]:
        for part in self.parts:
            yield from part.pieces(checkpoint)

    def columns(self, checkpoint: Checkpoint, start: int, stop: int) -> Tensor:
        return torch.cat([part.columns(checkpoint, start, stop) for part in self.parts])


@dataclass(frozen=True)
class Transposed:
    """A matrix [N, K] as [K, N], the layout that MatMul multiplies by; a range of columns at a time."""

    inner: Stored | Stacked

    @property
    def shape(self) -> tuple[int, ...]:
        return self.inner.shape[::-1]

    @property
    def sources(self) -> tuple[str, ...]:
        return self.inner.sources

    def pieces(self, checkpoint: Checkpoint) -> Iterator[Tensor]:
        rows, columns = self.inner.shape
        step = max(64, PIECE_BYTES // (4 * rows))
        for start in range(0, columns, step):
            yield self.inner.columns(checkpoint, start, min(start + step, columns)).t()


@dataclass(frozen=True)
class Computed:
    """Values that follow from the config, such as rotary frequencies."""

    shape: tuple[int, ...]
    compute: Callable[[], Tensor]

    @property
    def sources(self) -> tuple[str, ...]:
        return ()

    def pieces(self, checkpoint: Checkpoint) -> Iterator[Tensor]:
        yield self.compute()


def packed(recipes: Sequence[Recipe]) -> Transposed | Stacked:
    """One recipe for the weights, or the biases, of projections side by side."""
    inner = [recipe.inner if isinstance(recipe, Transposed) else recipe for recipe in recipes]
    stacked = Stacked(tuple(part for part in inner if isinstance(part, Stored)))
    assert len(stacked.parts) == len(recipes)
    return Transposed(stacked) if isinstance(recipes[0], Transposed) else stacked
