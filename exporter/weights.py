"""Recipes that compute the weights of a graph from tensors of a checkpoint.

A recipe writes values in pieces, in row-major order, so that a large tensor is never whole in memory. Most recipes make
one initializer, their only stream; a quantized weight makes several in one pass: codes, scales and zero points. Passes
that rewrite the graph compose recipes: a packed projection is a ``Transposed`` ``Stacked``.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ..artifact import TensorEntry
from ..models.weight_source import WeightSource

PIECE_BYTES = 1 << 26
"""About how much of a tensor is in memory at once, in the bytes of float32."""

Write = Callable[[str, Tensor], None]
"""Receives the key of a stream and its next piece."""


class Recipe(Protocol):
    """A way to compute one or more initializers in one pass over tensors of a checkpoint."""

    def write(self, checkpoint: WeightSource, write: Write) -> Mapping[str, TensorEntry]:
        """Call ``write(key, piece)`` for every piece of every stream.

        The pieces of a stream are its values in row-major order, along the first dimension; they are converted to the
        initializer's element type by the caller.

        Returns:
            by key, the manifest's entry of each stream whose entry is more than its element type and shape.
        """
        ...


@dataclass(frozen=True)
class Stream:
    """One initializer: what ``recipe`` writes under ``key``.

    Args:
        shape: of what is stored; for packed 4-bit values, in bytes.
        sources: the names of the checkpoint's tensors that it holds.
    """

    recipe: Recipe
    key: str
    shape: tuple[int, ...]
    sources: tuple[str, ...] = ()


class _Pieces(Recipe, Protocol):
    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def sources(self) -> tuple[str, ...]: ...

    def pieces(self, checkpoint: WeightSource) -> Iterator[Tensor]: ...


class _OneStream:
    """The base class of recipes with one stream."""

    @property
    def stream(self: _Pieces) -> Stream:
        return Stream(self, "", self.shape, self.sources)

    def write(self: _Pieces, checkpoint: WeightSource, write: Write) -> Mapping[str, TensorEntry]:
        for piece in self.pieces(checkpoint):
            write("", piece)
        return {}


@dataclass(frozen=True)
class Stored(_OneStream):
    """A tensor of the checkpoint as it is."""

    name: str
    shape: tuple[int, ...]

    @property
    def sources(self) -> tuple[str, ...]:
        return (self.name,)

    def pieces(self, checkpoint: WeightSource) -> Iterator[Tensor]:
        return (piece for _, piece in checkpoint.rows(self.name, PIECE_BYTES // 2))

    def columns(self, checkpoint: WeightSource, start: int, stop: int) -> Tensor:
        return checkpoint.columns(self.name, start, stop)


@dataclass(frozen=True)
class Stacked(_OneStream):
    """Tensors concatenated along the first dimension: the rows of q, k and v as one projection's."""

    parts: tuple[Stored, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return (sum(part.shape[0] for part in self.parts), *self.parts[0].shape[1:])

    @property
    def sources(self) -> tuple[str, ...]:
        return tuple(part.name for part in self.parts)

    def pieces(self, checkpoint: WeightSource) -> Iterator[Tensor]:
        for part in self.parts:
            yield from part.pieces(checkpoint)

    def columns(self, checkpoint: WeightSource, start: int, stop: int) -> Tensor:
        return torch.cat([part.columns(checkpoint, start, stop) for part in self.parts])


@dataclass(frozen=True)
class InTurn(_OneStream):
    """The weights of experts, one after the other: in each group, weights of one shape whose rows alternate."""

    groups: tuple[tuple[Stored, ...], ...]

    @property
    def shape(self) -> tuple[int, ...]:
        rows, columns = self.groups[0][0].shape
        return (len(self.groups), len(self.groups[0]) * rows, columns)

    @property
    def sources(self) -> tuple[str, ...]:
        return tuple(part.name for group in self.groups for part in group)

    def pieces(self, checkpoint: WeightSource) -> Iterator[Tensor]:
        for group in self.groups:
            for parts in zip(*(part.pieces(checkpoint) for part in group), strict=True):
                yield parts[0] if len(parts) == 1 else torch.stack(parts, 1).flatten(0, 1)


@dataclass(frozen=True)
class Transposed(_OneStream):
    """A matrix [N, K] as [K, N], the layout that MatMul takes; read a range of columns at a time."""

    inner: Stored | Stacked

    @property
    def shape(self) -> tuple[int, ...]:
        return self.inner.shape[::-1]

    @property
    def sources(self) -> tuple[str, ...]:
        return self.inner.sources

    def pieces(self, checkpoint: WeightSource) -> Iterator[Tensor]:
        rows, columns = self.inner.shape
        for start, stop in column_ranges(rows, columns):
            yield self.inner.columns(checkpoint, start, stop).t()


@dataclass(frozen=True)
class Computed(_OneStream):
    """Values computed from the config, such as rotary frequencies."""

    shape: tuple[int, ...]
    compute: Callable[[], Tensor]

    @property
    def sources(self) -> tuple[str, ...]:
        return ()

    def pieces(self, checkpoint: WeightSource) -> Iterator[Tensor]:
        yield self.compute()


def column_ranges(rows: int, columns: int) -> Iterator[tuple[int, int]]:
    """Split the columns of a matrix into ranges (start, stop) of about ``PIECE_BYTES`` each."""
    step = max(64, PIECE_BYTES // (4 * rows))
    for start in range(0, columns, step):
        yield start, min(start + step, columns)


def packed(recipes: Sequence[Recipe]) -> Transposed | Stacked:
    """Return one recipe for the weights, or the biases, of projections side by side."""
    inner = [recipe.inner if isinstance(recipe, Transposed) else recipe for recipe in recipes]
    stacked = Stacked(tuple(part for part in inner if isinstance(part, Stored)))
    assert len(stacked.parts) == len(recipes)
    return Transposed(stacked) if isinstance(recipes[0], Transposed) else stacked
