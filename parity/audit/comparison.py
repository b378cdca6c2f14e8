"""A stored weight beside what it should hold, summed up while both pass by in pieces."""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import pad

from .expected import Expected
from .layouts import Weight
from .stored import BlockPiece, FloatWeight, spread

LEAST_COLUMNS = 8
"""Of a block whose direction says something."""

OPPOSITE = -0.9
"""The cosine below which a block points the other way: no rounding, and no making good of other columns' errors (GPTQ),
turns a block round."""

TIE = 0.02
"""How far from halfway, in steps of its grid, either of two codes is the nearest."""


@dataclass
class Place:
    """How often something was seen, and where first."""

    count: int = 0
    row: int = -1
    column: int = -1

    def add(self, where: Tensor, rows: range, first_column: int, width: int = 1) -> None:
        """``where`` bool [n, m], each of whose columns stands for ``width`` of the weight's."""
        found = int(where.sum())
        if found and not self.count:
            row, column = (int(i) for i in where.nonzero()[0])
            self.row, self.column = rows.start + row, first_column + column * width
        self.count += found


@dataclass(frozen=True)
class Blocks:
    """Sums over blocks, each [n, KB], and their scales: squares of the error, of the source's numbers and of the stored
    ones, products of the two, and the error itself."""

    error: Tensor
    power: Tensor
    stored: Tensor
    product: Tensor
    shift: Tensor
    scales: Tensor

    @staticmethod
    def of(sums: list[Tensor], scales: Tensor) -> "Blocks":
        error, power, stored, product, shift = sums
        return Blocks(error, power, stored, product, shift, scales)


@dataclass
class Comparison:
    """Sums over a weight [N, K], those by row in float64 [N].

    ``strict`` says that every code must be the nearest on its block's grid: plain rounding. ``different`` counts
    numbers of a float weight that differ from the source's after rounding, ``unrounded`` codes that are not nearest.
    ``opposite``, ``above`` and ``below`` count blocks: pointing the other way, and off by more than half a step on the
    average, all the same way.
    """

    shape: tuple[int, int]
    block_size: int | None
    strict: bool
    power: Tensor = field(init=False)
    error: Tensor = field(init=False)
    stored: Tensor = field(init=False)
    product: Tensor = field(init=False)
    shifted: Tensor = field(init=False)
    row_scales: Tensor = field(init=False)
    blocks: int = 0
    worst: float = 0.0
    worst_row: int = 0
    worst_column: int = 0
    different: Place = field(default_factory=Place)
    not_finite: Place = field(default_factory=Place)
    unrounded: Place = field(default_factory=Place)
    opposite: Place = field(default_factory=Place)
    above: Place = field(default_factory=Place)
    below: Place = field(default_factory=Place)

    def __post_init__(self) -> None:
        rows = self.shape[0]
        for name in ("power", "error", "stored", "product", "shifted"):
            setattr(self, name, torch.zeros(rows, dtype=torch.float64))
        self.row_scales = torch.zeros(rows)

    @property
    def same(self) -> bool:
        """Whether a float weight is the source's, rounded."""
        return not self.different.count and not self.not_finite.count

    @property
    def relative_error(self) -> float:
        error, power = self.error.sum().item(), self.power.sum().item()
        return math.sqrt(error / power if power else error / (self.shape[0] * self.shape[1]))

    def add_float(self, values: Tensor, wanted: Tensor, dtype: torch.dtype, rows: range, columns: range) -> None:
        rounded = wanted.to(dtype).float()
        if torch.equal(values, rounded):
            # As nearly always: the sums of the errors are those of rounding, which is what the type was chosen for.
            self.power[rows.start : rows.stop] += _sum(wanted.square())
            return
        both = values.isfinite() | (values == rounded) | (values.isnan() & rounded.isnan())
        self.not_finite.add(~both, rows, columns.start)
        self.different.add((values != rounded) & both & ~values.isnan(), rows, columns.start)
        self._sum(torch.where(values.isfinite(), values, 0.0), torch.where(rounded.isfinite(), rounded, 0.0), rows)

    def add_blocks(self, piece: BlockPiece, wanted: Tensor, noise: float, rows: range, columns: range) -> None:
        finite = piece.values.isfinite()
        values = piece.values
        if not finite.all():
            self.not_finite.add(~finite, rows, columns.start)
            values = torch.where(finite, values, 0.0)
        error = self._sum(values, wanted, rows)
        assert self.block_size is not None
        if self.strict:
            self.unrounded.add(not_nearest(piece, wanted, noise, self.block_size), rows, columns.start)
        if self.block_size >= self.shape[1]:  # a block is a row, and may come in parts: see finish()
            self.shifted[rows.start : rows.stop] += _sum(error)
            self.row_scales[rows.start : rows.stop] = piece.scales[:, 0]
            return
        terms = (error.square(), wanted.square(), values.square(), wanted * values, error)
        self._blocks(Blocks.of([by_block(term, self.block_size) for term in terms], piece.scales), rows, columns)

    def finish(self) -> None:
        """The blocks that are rows."""
        if self.block_size is not None and self.block_size >= self.shape[1]:
            rows, columns = range(self.shape[0]), range(self.shape[1])
            sums = [x[:, None].float() for x in (self.error, self.power, self.stored, self.product, self.shifted)]
            self._blocks(Blocks.of(sums, self.row_scales[:, None]), rows, columns)

    def _sum(self, values: Tensor, wanted: Tensor, rows: range) -> Tensor:
        error = values - wanted
        part = slice(rows.start, rows.stop)
        self.power[part] += _sum(wanted.square())
        self.error[part] += _sum(error.square())
        self.stored[part] += _sum(values.square())
        self.product[part] += _sum(values * wanted)
        return error

    def _blocks(self, sums: Blocks, rows: range, columns: range) -> None:
        assert self.block_size is not None
        size = self.block_size
        self.blocks += sums.error.numel()
        relative = torch.where(sums.power > 0, sums.error / sums.power, (sums.error > 0).float()).sqrt()
        worst = int(relative.argmax())
        if (value := relative.flatten()[worst].item()) > self.worst:
            row, block = divmod(worst, relative.shape[1])
            self.worst, self.worst_row, self.worst_column = value, rows.start + row, columns.start + block * size
        counts = torch.full((relative.shape[1],), min(size, self.shape[1]))
        if columns.stop == self.shape[1] and (rest := self.shape[1] % size):
            counts[-1] = rest
        turned = sums.product < OPPOSITE * (sums.power * sums.stored).sqrt()
        self.opposite.add(turned & (sums.power > 0) & (counts >= LEAST_COLUMNS), rows, columns.start, size)
        steps = sums.shift / counts / sums.scales.abs()
        self.above.add(steps > 0.5, rows, columns.start, size)
        self.below.add(steps < -0.5, rows, columns.start, size)


def compare(weight: Weight, expected: Expected, *, strict: bool = False) -> Comparison:
    """Compare all of a weight, a few million numbers at a time."""
    found = Comparison(expected.shape, weight.block_size, strict)
    for rows, columns, wanted in expected.pieces(by_columns=weight.by_columns, multiple=weight.multiple):
        piece = weight.read(rows, columns)
        if isinstance(piece, BlockPiece):
            found.add_blocks(piece, wanted, expected.noise, rows, columns)
        else:
            assert isinstance(weight, FloatWeight)
            found.add_float(piece.values, wanted, weight.dtype, rows, columns)
    found.finish()
    return found


def not_nearest(piece: BlockPiece, wanted: Tensor, noise: float, block_size: int) -> Tensor:
    """Bool [n, k]: which codes are not the nearest to the source's numbers on the grid of their block."""
    scales = spread(piece.scales, block_size, wanted.shape[1])
    # Without a scale a block is zeros.
    ideal = torch.where(scales == 0, torch.where(wanted == 0, piece.codes, torch.inf), wanted / scales)
    nearest = torch.minimum(torch.maximum(ideal, piece.low), piece.high)
    return (piece.codes - nearest).abs() > 0.5 + TIE + (8 * noise + 1e-5) * ideal.abs()


def _sum(rows: Tensor) -> Tensor:
    return rows.sum(1, dtype=torch.float64)


def by_block(values: Tensor, size: int) -> Tensor:
    """Sums [n, KB] over the blocks of [n, k]."""
    if gap := -values.shape[1] % size:
        values = pad(values, (0, gap))
    return values.view(len(values), -1, size).sum(-1)
