"""Find the folded scales: exactly from the vectors that were divided by them, or else by a least-squares fit."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...models.checkpoint import Checkpoint
from .comparison import compare
from .expected import Expected, expected_of
from .folds import EPSILON, Fold, FoldFactors, StoredWeight, folds
from .reading.stored import BlockPart, FloatWeight, WeightPart, expand_blocks

CONFIRMED = 0.02
"""The part by which an error under the right scales may exceed the one in the manifest."""

EXPLAINED = 0.25
"""The part of that excess that may remain under other scales, if they are to be the right ones."""


def find_scales(checkpoint: Checkpoint, stored: Mapping[str, StoredWeight], via: torch.dtype | None) -> FoldFactors:
    """Return the scales of every fold.

    Args:
        stored: the stored weights, by name of the checkpoint's tensor.
        via: as in ``Expected``.
    """
    search = _Search(checkpoint, stored, via, FoldFactors())
    found = folds(checkpoint, stored)
    exact = [fold for fold in found if search.take_exact(fold)]
    for fold in found:
        if fold not in exact:
            search.fit(fold)
    for fold in exact:
        search.confirm(fold)
    return search.factors


@dataclass(frozen=True)
class _Search:
    checkpoint: Checkpoint
    stored: Mapping[str, StoredWeight]
    via: torch.dtype | None
    factors: FoldFactors

    def _expected(self, name: str) -> Expected:
        """Return what the stored weight of a tensor should hold, under the scales that are known."""
        stored = self.stored[name]
        expected = expected_of(self.checkpoint, stored.entry.sources, stored.name)
        return self.factors.apply(replace(expected, via=self.via))

    def take_exact(self, fold: Fold) -> bool:
        """Take the scales from a divided vector; return false without such a vector or if some are not positive."""
        vector = self._vector(fold)
        if vector is None:
            return False
        exact, source, uncertainty = self._exact(vector)
        if (~_is_positive(exact) & (source != 0)).any():
            fitted, fitted_uncertainty = self._fit(fold)
            self.factors.faults[vector] = _describe_fault(exact, fitted, fold)
            self.factors.add(fold, fitted, fitted_uncertainty)
            return False
        if not _is_positive(exact).all():
            return False
        self.factors.add(fold, exact, uncertainty)
        return True

    def fit(self, fold: Fold) -> None:
        """Take the fitted scales, except for those that a divided vector gives."""
        vector = self._vector(fold)
        if vector in self.factors.faults:
            return
        scales, uncertainty = self._fit(fold)
        if vector is not None:
            exact = self._exact(vector)[0]
            scales = torch.where(_is_positive(exact), exact, scales)
        self.factors.add(fold, scales, uncertainty)

    def confirm(self, fold: Fold) -> None:
        """Decide whether the vector that the scales were taken from is right.

        It is if one of the weights has the error that the manifest records. Otherwise it is at fault if fitted scales
        explain the errors of all of them.
        """
        before = self._excess(fold)
        if min(before) <= CONFIRMED:
            return
        vector = self._vector(fold)
        assert vector is not None
        exact, _, uncertainty = self._exact(vector)
        self.factors.remove(fold)
        fitted, fitted_uncertainty = self._fit(fold)
        self.factors.add(fold, fitted, fitted_uncertainty)
        if all(after <= EXPLAINED * excess for after, excess in zip(self._excess(fold), before, strict=True)):
            self.factors.faults[vector] = _describe_fault(exact, fitted, fold)
        else:
            self.factors.add(fold, exact, uncertainty)

    def _vector(self, fold: Fold) -> str | None:
        return next((name for name in fold.divided if self._expected(name).is_vector), None)

    def _exact(self, vector: str) -> tuple[Tensor, Tensor, float]:
        """Return the scales [n] by which a vector is divided, the source's numbers, and the scales' uncertainty."""
        expected, weight = self._expected(vector), self.stored[vector].weight
        assert isinstance(weight, FloatWeight)
        span = expected.span(vector)
        source = replace(expected, row_scales=None, column_scales=None).whole()[0, span.start : span.stop]
        stored = weight.read(range(1), range(expected.shape[1])).values[0, span.start : span.stop]
        return torch.where(source == 0, torch.nan, source / stored), source, 2 * EPSILON[weight.dtype]

    def _excess(self, fold: Fold) -> list[float]:
        """Return by which part the errors of the multiplied weights exceed those in the manifest."""
        found = []
        for name in fold.multiplied:
            recorded = self._recorded_error(name)
            error = compare(self.stored[name].weight, self._expected(name)).relative_error
            found.append(error / recorded - 1 if recorded else error)
        return found

    def _recorded_error(self, name: str) -> float:
        quantization = self.stored[name].entry.quantization
        assert quantization is not None
        return quantization.error

    def _fit(self, fold: Fold) -> tuple[Tensor, float]:
        """Return the scales [n] that fit rows and columns best (least squares), and their median uncertainty."""
        total = weights = torch.zeros(())
        for name in fold.multiplied:
            product, squares, variance = (fold.sum_columns(x) for x in self._sums(name, by_rows=False))
            weight = _finite(product.square() / variance)
            total, weights = total + _finite(product / squares) * weight, weights + weight
        for name in fold.divided:
            if not self._expected(name).is_vector:
                product, squares, variance = self._sums(name, by_rows=True)
                weight = _finite(product.square() / variance)
                total, weights = total + _finite(squares / product) * weight, weights + weight
        scales = (total / weights).float()
        uncertainty = float(weights[weights > 0].median().rsqrt()) if weights.any() else 1.0
        return torch.where(_is_positive(scales), scales, 1.0), uncertainty

    def _sums(self, name: str, *, by_rows: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Return sums by row or column of one tensor, float64.

        Returns:
            the products of the source's and the stored numbers, the source's squares, and the variance that rounding
            gives the products.
        """
        expected, weight = self._expected(name), self.stored[name].weight
        span, axis = expected.span(name), 1 if by_rows else 0
        sums = [torch.zeros(len(span) if by_rows else expected.shape[1], dtype=torch.float64) for _ in range(3)]
        for rows, columns, numbers in expected.chunks(by_columns=weight.by_columns, column_step=weight.column_step):
            inside = range(max(rows.start, span.start), min(rows.stop, span.stop))
            if not inside:
                continue
            some = slice(inside.start - rows.start, inside.stop - rows.start)
            part = weight.read(rows, columns)
            source, stored, step = numbers[some], part.values[some], _step(part, weight.block_size)[some]
            stored = _finite(stored)
            first = inside.start - span.start if by_rows else columns.start
            at = slice(first, first + (len(inside) if by_rows else len(columns)))
            terms = (source * stored, source.square(), (source * step).square() / 12)
            for known, term in zip(sums, terms, strict=True):
                known[at] += term.sum(axis, dtype=torch.float64)
        return sums[0], sums[1], sums[2]


def _step(part: WeightPart, block_size: int | None) -> Tensor:
    """Return the step of the grid that each number was rounded to."""
    if isinstance(part, BlockPart) and block_size is not None:
        return expand_blocks(part.scales, block_size, part.values.shape[1])
    return part.values * 2.0**-20


def _is_positive(scales: Tensor) -> Tensor:
    return scales.isfinite() & (scales > 0)


def _finite(values: Tensor) -> Tensor:
    return torch.where(values.isfinite(), values, 0.0)


def _describe_fault(exact: Tensor, fitted: Tensor, fold: Fold) -> str:
    usable = _is_positive(exact)
    names = ", ".join(name.removesuffix(".weight").rpartition(".")[2] for name in fold.multiplied)
    fault = f"its numbers are not the source's divided by the scales in the columns of {names}"
    if not usable.any():
        return f"{fault}, which are positive"
    if not usable.all():
        return f"{fault}: {int((~usable).sum()):,} of them are zero or have the opposite sign"
    return f"{fault}: their median is {(fitted / exact)[usable].median().item():.3g} times that"
