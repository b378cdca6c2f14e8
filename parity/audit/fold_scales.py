"""Finding the scales that were folded in: from the vectors that were divided by them, or by what fits best."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...models.checkpoint import Checkpoint
from .comparison import compare
from .expected import Expected, expected_of
from .folds import ROUNDING, Factors, Fold, Holder, folds
from .stored import BlockPiece, FloatWeight, Piece, spread

AGREES = 0.02
"""By how much more, relatively, the error under scales that are right may be than the one in the manifest."""

EXPLAINS = 0.25
"""Of the error beyond that one, what other scales may leave if they are to explain it."""


def factors(checkpoint: Checkpoint, holders: Mapping[str, Holder], through: torch.dtype | None) -> Factors:
    """The scales of every fold.

    Args:
        holders: by tensor of the checkpoint.
        through: as in ``Expected``.
    """
    search = _Search(checkpoint, holders, through, Factors())
    found = folds(checkpoint, holders)
    given = [fold for fold in found if search.given(fold)]
    for fold in found:
        if fold not in given:
            search.fit(fold)
    for fold in given:
        search.check(fold)
    return search.known


@dataclass(frozen=True)
class _Search:
    checkpoint: Checkpoint
    holders: Mapping[str, Holder]
    through: torch.dtype | None
    known: Factors

    def _expected(self, name: str) -> Expected:
        """What the holder of a tensor should hold, as far as is known."""
        holder = self.holders[name]
        wanted = expected_of(self.checkpoint, holder.entry.sources, holder.name)
        return self.known.apply(replace(wanted, through=self.through))

    def given(self, fold: Fold) -> bool:
        """Take the scales that a divided vector gives away; False where there is none, or some are not to be had."""
        vector = self._vector(fold)
        if vector is None:
            return False
        exact, source, noise = self._exact(vector)
        if (~_positive(exact) & (source != 0)).any():
            fitted, rough = self._fitted(fold)
            self.known.wrong[vector] = _wrong(exact, fitted, fold)
            self.known.add(fold, fitted, rough)
            return False
        if not _positive(exact).all():
            return False
        self.known.add(fold, exact, noise)
        return True

    def fit(self, fold: Fold) -> None:
        """Take the scales that fit best, wherever nothing gives them away."""
        vector = self._vector(fold)
        if vector in self.known.wrong:
            return
        scales, noise = self._fitted(fold)
        if vector is not None:
            exact = self._exact(vector)[0]
            scales = torch.where(_positive(exact), exact, scales)
        self.known.add(fold, scales, noise)

    def check(self, fold: Fold) -> None:
        """Whether the vector that gave the scales away can be right: if weights behind it have the error that was
        recorded of them, it is, and what disagrees is wrong in itself."""
        before = self._excess(fold)
        if min(before) <= AGREES:
            return
        vector = self._vector(fold)
        assert vector is not None
        exact, _, noise = self._exact(vector)
        for name in (*fold.divided, *fold.multiplied):
            self._forget(fold, name)
        fitted, rough = self._fitted(fold)
        self.known.add(fold, fitted, rough)
        if all(after <= EXPLAINS * excess for after, excess in zip(self._excess(fold), before, strict=True)):
            self.known.wrong[vector] = _wrong(exact, fitted, fold)
        else:
            self.known.add(fold, exact, noise)

    def _vector(self, fold: Fold) -> str | None:
        return next((name for name in fold.divided if self._expected(name).vector), None)

    def _exact(self, vector: str) -> tuple[Tensor, Tensor, float]:
        """The scales [n] that a vector gives away, the source's numbers, and how the scales were rounded."""
        expected, weight = self._expected(vector), self.holders[vector].weight
        assert isinstance(weight, FloatWeight)
        place = expected.place(vector)
        source = replace(expected, rows_by=None, columns_by=None).whole()[0, place.start : place.stop]
        stored = weight.read(range(1), range(expected.shape[1])).values[0, place.start : place.stop]
        return torch.where(source == 0, torch.nan, source / stored), source, 2 * ROUNDING[weight.dtype]

    def _excess(self, fold: Fold) -> list[float]:
        """By how much the errors of the weights behind are beyond those recorded, relatively."""
        found = []
        for name in fold.multiplied:
            recorded = self._recorded(name)
            error = compare(self.holders[name].weight, self._expected(name)).relative_error
            found.append(error / recorded - 1 if recorded else error)
        return found

    def _forget(self, fold: Fold, name: str) -> None:
        (self.known.rows if name in fold.divided else self.known.columns).pop(name, None)

    def _recorded(self, name: str) -> float:
        quantization = self.holders[name].entry.quantization
        assert quantization is not None
        return quantization.error

    def _fitted(self, fold: Fold) -> tuple[Tensor, float]:
        """The scales [n] that fit rows and columns best (least squares), and how uncertain the most of them are."""
        total = weights = torch.zeros(())
        for name in fold.multiplied:
            product, power, variance = (fold.gather(x) for x in self._sums(name, by_rows=False))
            weight = _finite(product.square() / variance)
            total, weights = total + _finite(product / power) * weight, weights + weight
        for name in fold.divided:
            if not self._expected(name).vector:
                product, power, variance = self._sums(name, by_rows=True)
                weight = _finite(product.square() / variance)
                total, weights = total + _finite(power / product) * weight, weights + weight
        scales = (total / weights).float()
        return torch.where(_positive(scales), scales, 1.0), float(
            weights[weights > 0].median().rsqrt()
        ) if weights.any() else 1.0

    def _sums(self, name: str, *, by_rows: bool) -> tuple[Tensor, Tensor, Tensor]:
        """By row or column of one tensor, float64: products of the source's and the stored numbers, the source's
        squares, and the variance of the products, which is that of rounding."""
        expected, weight = self._expected(name), self.holders[name].weight
        place, axis = expected.place(name), 1 if by_rows else 0
        sums = [torch.zeros(len(place) if by_rows else expected.shape[1], dtype=torch.float64) for _ in range(3)]
        for rows, columns, wanted in expected.pieces(by_columns=weight.by_columns, multiple=weight.multiple):
            inside = range(max(rows.start, place.start), min(rows.stop, place.stop))
            if not inside:
                continue
            some = slice(inside.start - rows.start, inside.stop - rows.start)
            piece = weight.read(rows, columns)
            source, stored, step = wanted[some], piece.values[some], _step(piece, weight.block_size)[some]
            stored = torch.where(stored.isfinite(), stored, 0.0)
            first = inside.start - place.start if by_rows else columns.start
            at = slice(first, first + (len(inside) if by_rows else len(columns)))
            for known, term in zip(
                sums, (source * stored, source.square(), (source * step).square() / 12), strict=True
            ):
                known[at] += term.sum(axis, dtype=torch.float64)
        return sums[0], sums[1], sums[2]


def _step(piece: Piece, block_size: int | None) -> Tensor:
    """Of the grid that each number was rounded to."""
    if isinstance(piece, BlockPiece) and block_size is not None:
        return spread(piece.scales, block_size, piece.values.shape[1])
    return piece.values * 2.0**-20


def _positive(scales: Tensor) -> Tensor:
    return scales.isfinite() & (scales > 0)


def _finite(values: Tensor) -> Tensor:
    return torch.where(values.isfinite(), values, 0.0)


def _wrong(exact: Tensor, fitted: Tensor, fold: Fold) -> str:
    usable = _positive(exact)
    behind = ", ".join(name.removesuffix(".weight").rpartition(".")[2] for name in fold.multiplied)
    wrong = f"its numbers are not the source's divided by the scales in the columns of {behind}"
    if not usable.any():
        return f"{wrong}, which are positive"
    if not usable.all():
        return f"{wrong}: {int((~usable).sum()):,} of them are zero or have the opposite sign"
    return f"{wrong}: in the middle they are {(fitted / exact)[usable].median().item():.3g} times that"
