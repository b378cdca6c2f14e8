"""One weight of the model with adapters in it, read in ranges."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from ...errors import CheckpointError
from ..storage.safetensors_files import read_tensor
from ..storage.store import TensorStore
from ..weight_source import TensorInfo
from .terms import TILE, Stored, Term

STRIP_BYTES = 1 << 25
"""Bytes of a weight's strip in float64: what is computed at once."""


class Origin(Protocol):
    """The numbers that a change begins with."""

    def read(self, rows: range | None = None, columns: range | None = None) -> Tensor:
        """Return a range of them."""
        ...


@dataclass(frozen=True)
class OfBase:
    """A tensor of the base."""

    store: TensorStore
    name: str

    def read(self, rows: range | None = None, columns: range | None = None) -> Tensor:
        return self.store.read(self.name, rows, columns)


@dataclass(frozen=True)
class OfStored:
    """A tensor that an adapter brings whole."""

    stored: Stored

    def read(self, rows: range | None = None, columns: range | None = None) -> Tensor:
        return read_tensor(self.stored.file, self.stored.name, rows, columns)


@dataclass(frozen=True)
class WithRows:
    """A matrix with some rows from an adapter: row ``indices[i]`` is row i of ``stored``."""

    origin: Origin
    indices: tuple[int, ...]
    stored: Stored

    def read(self, rows: range | None = None, columns: range | None = None) -> Tensor:
        part = self.origin.read(rows, columns).float()
        first, height = (0 if rows is None else rows.start), part.shape[0]
        replaced = self.stored.read(columns=columns).float()
        for position, index in enumerate(self.indices):
            if first <= index < first + height:
                part[index - first] = replaced[position]
        return part


@dataclass(frozen=True)
class Magnitude:
    """DoRA's magnitudes: each row of the sum, or each column of an embedding's, gets the norm that ``stored`` says.

    The norm is that of the base's weight plus the product (Liu et al., arXiv 2402.09353, equation 5).
    """

    stored: Stored
    columns: bool


@dataclass(frozen=True)
class Scale:
    """IA3's factors of a weight's rows, or of its columns."""

    stored: Stored
    columns: bool


@dataclass
class Change:
    """A tensor of the model: ``origin`` plus the terms, then scaled.

    Args:
        info: of the result.
        vectors: what is added to a bias [N], each with a factor.
        by: the folders of the adapters that change it, for messages.
    """

    name: str
    info: TensorInfo
    origin: Origin
    terms: list[Term] = field(default_factory=list)
    vectors: list[tuple[Stored, float]] = field(default_factory=list)
    magnitude: Magnitude | None = None
    scale: Scale | None = None
    by: list[str] = field(default_factory=list)
    _factors: Tensor | None = None

    @property
    def computes(self) -> bool:
        """True if it is more than a copy of ``origin``."""
        return bool(self.terms or self.vectors or self.magnitude or self.scale)

    def read(self, rows: range | None = None, columns: range | None = None) -> Tensor:
        """Return a range of the result: float32, each number rounded once; a copy in its own dtype.

        Raises:
            CheckpointError: it is not finite, or a file cannot be read.
        """
        if not self.computes:
            return self.origin.read(rows, columns)
        shape = self.info.shape
        rows = range(shape[0]) if rows is None else rows
        if len(shape) == 1:
            found = self._vector(rows)
        else:
            found = self._matrix(rows, range(shape[1]) if columns is None else columns)
        if not torch.isfinite(found).all():
            raise CheckpointError(
                f"{self.name} with the adapter {' and '.join(self.by)} has values that are not finite; the adapter "
                "does not belong to this base, or one of both is damaged"
            )
        return found

    def _vector(self, rows: range) -> Tensor:
        found = self.origin.read(rows).double()
        for stored, factor in self.vectors:
            found += factor * stored.read(rows)
        if self.scale is not None:
            found *= self.scale.stored.read().flatten()[rows.start : rows.stop]
        return found.float()

    def _matrix(self, rows: range, columns: range) -> Tensor:
        found = self.origin.read(rows, columns).float()
        factors = self._row_or_column_factors()
        for strip in _strips(rows, self.info.shape[1]):
            down = slice(strip.start - rows.start, strip.stop - rows.start)
            part = found[down].double()
            for term in self.terms:
                part += term.part(strip, columns)
            if factors is not None and self._by_column:
                part *= factors[columns.start : columns.stop]
            elif factors is not None:
                part *= factors[strip.start : strip.stop, None]
            found[down] = part.float()
        return found

    @property
    def _by_column(self) -> bool:
        return bool((self.magnitude and self.magnitude.columns) or (self.scale and self.scale.columns))

    def _row_or_column_factors(self) -> Tensor | None:
        """Return what the sum's rows or columns are multiplied by, float64, computed once."""
        if self._factors is None:
            if self.scale is not None:
                self._factors = self.scale.stored.read().flatten()
            elif self.magnitude is not None:
                self._factors = self.magnitude.stored.read().flatten() / self._norms()
        return self._factors

    def _norms(self) -> Tensor:
        """Return the norms of the sum's rows or columns: one pass over the weight, in chunks of rows."""
        assert self.magnitude is not None
        height, width = self.info.shape
        squares = torch.zeros(width if self.magnitude.columns else height, dtype=torch.float64)
        for rows in _strips(range(height), width):
            part = self.origin.read(rows).double()
            for term in self.terms:
                part += term.part(rows, range(width))
            if self.magnitude.columns:
                squares += part.square().sum(0)
            else:
                squares[rows.start : rows.stop] = part.square().sum(1)
        return squares.sqrt()


def _strips(rows: range, width: int) -> Iterator[range]:
    """Yield the rows in strips that end at tiles, which bounds the memory of the terms in float64."""
    step = max(1, STRIP_BYTES // (8 * width) // TILE) * TILE
    start = rows.start
    while start < rows.stop:
        stop = min((start // step + 1) * step, rows.stop)
        yield range(start, stop)
        start = stop
