"""The comparison of a stored weight with the expected numbers, in chunks, so that neither is in memory as a whole."""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import pad

from .expected import Expected
from .reading.layouts import Weight
from .reading.stored import BlockPart, FloatWeight, expand_blocks

LEAST_COLUMNS = 8
"""The direction of a block with fewer columns says nothing."""

OPPOSITE = -0.9
"""The cosine below which a block has the opposite direction. Neither rounding nor GPTQ, which compensates the errors of
other columns, changes the direction of a block so far."""

TIE = 0.02
"""The distance from halfway between two codes, in steps, within which either is accepted as the nearest."""


@dataclass
class Occurrences:
    """The number of elements of some kind, and the first of them."""

    count: int = 0
    row: int = -1
    column: int = -1

    def add(self, where: Tensor, rows: range, first_column: int, width: int = 1) -> None:
        """Add the true elements of ``where``, bool [n, m], each of which covers ``width`` columns."""
        found = int(where.sum())
        if found and not self.count:
            row, column = (int(i) for i in where.nonzero()[0])
            self.row, self.column = rows.start + row, first_column + column * width
        self.count += found


@dataclass
class Comparison:
    """The differences of a stored weight [N, K] from the expected numbers.

    Attributes:
        squared_error, expected, stored, product, error: sums by row, float64 [N], of the squares of stored minus
            expected, of the expected numbers' squares, of the stored numbers' squares, of the products of the two, and
            of stored minus expected.
        different: the numbers of a float weight that are not the expected ones after rounding.
        not_nearest: the codes that are not the nearest; counted only if ``strict``, for plain rounding.
        opposite, above, below: the blocks of the opposite direction, and those off by more than half a step on average.
    """

    shape: tuple[int, int]
    block_size: int | None
    strict: bool
    squared_error: Tensor = field(init=False)
    expected: Tensor = field(init=False)
    stored: Tensor = field(init=False)
    product: Tensor = field(init=False)
    error: Tensor = field(init=False)
    row_scales: Tensor = field(init=False)
    blocks: int = 0
    worst: float = 0.0
    worst_row: int = 0
    worst_column: int = 0
    different: Occurrences = field(default_factory=Occurrences)
    not_finite: Occurrences = field(default_factory=Occurrences)
    not_nearest: Occurrences = field(default_factory=Occurrences)
    opposite: Occurrences = field(default_factory=Occurrences)
    above: Occurrences = field(default_factory=Occurrences)
    below: Occurrences = field(default_factory=Occurrences)

    def __post_init__(self) -> None:
        rows = self.shape[0]
        for name in ("squared_error", "expected", "stored", "product", "error"):
            setattr(self, name, torch.zeros(rows, dtype=torch.float64))
        self.row_scales = torch.zeros(rows)

    @property
    def same(self) -> bool:
        """True if a float weight is the expected one, rounded."""
        return not self.different.count and not self.not_finite.count

    @property
    def relative_error(self) -> float:
        error, expected = self.squared_error.sum().item(), self.expected.sum().item()
        return math.sqrt(error / expected if expected else error / (self.shape[0] * self.shape[1]))

    def add_float(self, values: Tensor, expected: Tensor, dtype: torch.dtype, rows: range, columns: range) -> None:
        """Add a chunk of a float weight of type ``dtype``."""
        rounded = expected.to(dtype).float()
        if torch.equal(values, rounded):
            # The usual case. Rounding to the weight's own type is not counted as an error.
            self.expected[rows.start : rows.stop] += _row_sums(expected.square())
            return
        both = values.isfinite() | (values == rounded) | (values.isnan() & rounded.isnan())
        self.not_finite.add(~both, rows, columns.start)
        self.different.add((values != rounded) & both & ~values.isnan(), rows, columns.start)
        self._add_rows(torch.where(values.isfinite(), values, 0.0), torch.where(rounded.isfinite(), rounded, 0.0), rows)

    def add_blocks(self, part: BlockPart, expected: Tensor, uncertainty: float, rows: range, columns: range) -> None:
        """Add a chunk of a block-quantized weight."""
        finite = part.values.isfinite()
        values = part.values
        if not finite.all():
            self.not_finite.add(~finite, rows, columns.start)
            values = torch.where(finite, values, 0.0)
        error = self._add_rows(values, expected, rows)
        assert self.block_size is not None
        if self.strict:
            self.not_nearest.add(not_nearest(part, expected, uncertainty, self.block_size), rows, columns.start)
        if self.block_size >= self.shape[1]:  # a block is a row, which may come in several chunks: see finish()
            self.error[rows.start : rows.stop] += _row_sums(error)
            self.row_scales[rows.start : rows.stop] = part.scales[:, 0]
            return
        terms = (error.square(), expected.square(), values.square(), expected * values, error)
        self._add_blocks([by_block(term, self.block_size) for term in terms], part.scales, rows, columns)

    def finish(self) -> None:
        """Add the blocks that are whole rows."""
        if self.block_size is not None and self.block_size >= self.shape[1]:
            rows, columns = range(self.shape[0]), range(self.shape[1])
            terms = (self.squared_error, self.expected, self.stored, self.product, self.error)
            self._add_blocks([term[:, None].float() for term in terms], self.row_scales[:, None], rows, columns)

    def _add_rows(self, values: Tensor, expected: Tensor, rows: range) -> Tensor:
        error = values - expected
        part = slice(rows.start, rows.stop)
        self.expected[part] += _row_sums(expected.square())
        self.squared_error[part] += _row_sums(error.square())
        self.stored[part] += _row_sums(values.square())
        self.product[part] += _row_sums(values * expected)
        return error

    def _add_blocks(self, sums: list[Tensor], scales: Tensor, rows: range, columns: range) -> None:
        """Add blocks, given their sums in the order of the sums by row, and their scales, each [n, KB]."""
        assert self.block_size is not None
        size = self.block_size
        squared_error, expected, stored, product, error = sums
        self.blocks += error.numel()
        relative = torch.where(expected > 0, squared_error / expected, (squared_error > 0).float()).sqrt()
        worst = int(relative.argmax())
        if (value := relative.flatten()[worst].item()) > self.worst:
            row, block = divmod(worst, relative.shape[1])
            self.worst, self.worst_row, self.worst_column = value, rows.start + row, columns.start + block * size
        counts = torch.full((relative.shape[1],), min(size, self.shape[1]))
        if columns.stop == self.shape[1] and (rest := self.shape[1] % size):
            counts[-1] = rest
        opposite = product < OPPOSITE * (expected * stored).sqrt()
        self.opposite.add(opposite & (expected > 0) & (counts >= LEAST_COLUMNS), rows, columns.start, size)
        steps = error / counts / scales.abs()
        self.above.add(steps > 0.5, rows, columns.start, size)
        self.below.add(steps < -0.5, rows, columns.start, size)


def compare(weight: Weight, expected: Expected, *, strict: bool = False) -> Comparison:
    """Compare all of a weight, a few million numbers at a time."""
    found = Comparison(expected.shape, weight.block_size, strict)
    for rows, columns, numbers in expected.chunks(by_columns=weight.by_columns, column_step=weight.column_step):
        part = weight.read(rows, columns)
        if isinstance(part, BlockPart):
            found.add_blocks(part, numbers, expected.uncertainty, rows, columns)
        else:
            assert isinstance(weight, FloatWeight)
            found.add_float(part.values, numbers, weight.dtype, rows, columns)
    found.finish()
    return found


def not_nearest(part: BlockPart, expected: Tensor, uncertainty: float, block_size: int) -> Tensor:
    """Return bool [n, k]: the codes that are not the nearest to the expected numbers on the grid of their block."""
    scales = expand_blocks(part.scales, block_size, expected.shape[1])
    # A block with scale 0 is all zeros.
    ideal = torch.where(scales == 0, torch.where(expected == 0, part.codes, torch.inf), expected / scales)
    nearest = torch.minimum(torch.maximum(ideal, part.low), part.high)
    return (part.codes - nearest).abs() > 0.5 + TIE + (8 * uncertainty + 1e-5) * ideal.abs()


def _row_sums(values: Tensor) -> Tensor:
    return values.sum(1, dtype=torch.float64)


def by_block(values: Tensor, size: int) -> Tensor:
    """Return the sums [n, KB] over the blocks of [n, k]."""
    if gap := -values.shape[1] % size:
        values = pad(values, (0, gap))
    return values.view(len(values), -1, size).sum(-1)
