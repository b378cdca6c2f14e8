"""What is wrong with the blocks of a quantized weight: their scales, their zero points, or their codes."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ...artifact import TensorEntry
from .comparison import Comparison, by_block, not_nearest
from .expected import Expected
from .layouts import Weight
from .stored import BlockPiece, spread

COARSE = {"rtn": 2.5, "awq": 2.5}
"""How many times its tensor's recorded error a block may have; 4 of other methods."""

ALIKE = 0.9
"""The cosine from which codes are those of their block, whatever their scale."""

RATIO = 1.2
"""By how much a scale is not the one that its codes belong to."""

FEW = 0.25
"""The share of a block's codes up to which single codes are at fault."""


@dataclass
class _Seen:
    """Blocks at fault in one way."""

    count: int = 0
    row: int = 0
    column: int = 0
    values: list[float] = field(default_factory=list)

    def add(self, where: Tensor, rows: range, columns: range, size: int, values: Tensor | None = None) -> None:
        places = where.nonzero()
        if len(places) and not self.count:
            row, block = places[0].tolist()
            self.row, self.column = rows.start + row, columns.start + block * size
        self.count += len(places)
        if values is not None and len(self.values) < 10_000:
            self.values += values[where].tolist()


@dataclass
class _Causes:
    sign: _Seen = field(default_factory=_Seen)
    zero: _Seen = field(default_factory=_Seen)
    scale: _Seen = field(default_factory=_Seen)
    single: _Seen = field(default_factory=_Seen)
    codes: _Seen = field(default_factory=_Seen)


def blocks_at_fault(weight: Weight, expected: Expected, entry: TensorEntry, found: Comparison) -> str | None:
    """Which blocks cannot have come from rounding, and what is wrong with them; None where their codes are those of
    other numbers altogether."""
    assert entry.quantization is not None
    causes = _Causes()
    limit = COARSE.get(entry.quantization.method, 4.0) * entry.quantization.error
    for rows, columns, wanted in _whole_blocks(weight, expected):
        piece = weight.read(rows, columns)
        assert isinstance(piece, BlockPiece)
        _sort(piece, wanted, expected, found, limit, rows, columns, causes)
    kinds = (causes.sign, causes.zero, causes.scale, causes.single)
    most = max(kinds, key=lambda seen: seen.count)
    if not most.count or causes.codes.count > most.count:
        return None
    size = min(found.block_size or 1, expected.shape[1])
    where = f"{expected.named(most.row)}, columns {most.column:,} to {min(most.column + size, expected.shape[1]) - 1:,}"
    share = f"in {most.count:,} of its {found.blocks:,} blocks, the first in {where}"
    if most is causes.sign:
        return f"the sign of the scale is turned over {share}"
    if most is causes.zero:
        steps, times = Counter(int(value) for value in most.values).most_common(1)[0]
        mostly = "" if times == len(most.values) else "mostly "
        return f"the zero point is off by {mostly}{steps:+d} {share}"
    if most is causes.single:
        return f"single codes are not those nearest to the source's numbers {share}"
    return f"{_scales(weight, expected, most)} {share}"


def _whole_blocks(weight: Weight, expected: Expected) -> Iterator[tuple[range, range, Tensor]]:
    size = weight.block_size or 1
    whole = size >= expected.shape[1]
    return expected.pieces(by_columns=weight.by_columns and not whole, multiple=1 if whole else size)


def _sort(
    piece: BlockPiece,
    wanted: Tensor,
    expected: Expected,
    found: Comparison,
    limit: float,
    rows: range,
    columns: range,
    causes: _Causes,
) -> None:
    assert found.block_size is not None
    size = min(found.block_size, expected.shape[1])
    error = piece.values - wanted
    counts = by_block(torch.ones_like(wanted[:1]), size)
    power, codes_power = by_block(wanted.square(), size), by_block(piece.codes.square(), size)
    product = by_block(wanted * piece.codes, size)
    cosine = product / (power * codes_power).sqrt().clamp(min=1e-30)
    relative = (by_block(error.square(), size) / power.clamp(min=1e-30)).sqrt()
    mean = by_block(error, size) / counts
    steps = mean / piece.scales
    even = by_block((error - spread(mean, size, len(columns))).square(), size) / counts
    shifted = (steps.abs() > 0.5) & ((steps - steps.round()).abs() < 0.35) & (even.sqrt() < 0.75 * piece.scales.abs())
    turned = (cosine * piece.scales.sign() < -ALIKE) & (counts >= 2)
    ratio = product / codes_power.clamp(min=1e-30) / piece.scales
    strange = torch.zeros_like(cosine)
    if found.strict:
        strange = by_block(not_nearest(piece, wanted, expected.noise, size).float(), size)
    bad = (relative > limit) | turned | (steps.abs() > 0.5) | (strange > 0)
    turned = turned & bad
    shifted = shifted & bad & ~turned
    wrong_scale = (cosine.abs() > ALIKE) & ((ratio > RATIO) | (ratio < 1 / RATIO)) & bad & ~turned & ~shifted
    single = bad & ~turned & ~shifted & ~wrong_scale & (strange > 0) & (strange <= (FEW * counts).clamp(min=1))
    rest = bad & ~turned & ~shifted & ~wrong_scale & ~single
    causes.sign.add(turned, rows, columns, size)
    causes.zero.add(shifted, rows, columns, size, -steps.round())
    causes.scale.add(wrong_scale, rows, columns, size, 1 / ratio)
    causes.single.add(single, rows, columns, size)
    causes.codes.add(rest, rows, columns, size)


def _scales(weight: Weight, expected: Expected, seen: _Seen) -> str:
    """Where the scales come from, if that can be told."""
    stored, fitting = [], []
    by_columns = weight.by_columns and (weight.block_size or 1) < expected.shape[1]
    for rows, columns, wanted in _whole_blocks(weight, expected):
        piece = weight.read(rows, columns)
        assert isinstance(piece, BlockPiece)
        size = min(weight.block_size or 1, expected.shape[1])
        stored.append(piece.scales)
        fitting.append(by_block(wanted * piece.codes, size) / by_block(piece.codes.square(), size).clamp(min=1e-30))
    ours, theirs = (torch.cat(parts, 1 if by_columns else 0) for parts in (stored, fitting))
    count = torch.tensor(seen.values)
    if count.numel() and (count / count.median() - 1).abs().max() < RATIO - 1:
        return f"the scale is {count.median().item():.4g} times that of the codes"
    height, width = theirs.shape
    orders = {
        "in the order of columns, and are read in that of rows,": theirs.t().reshape(height, width),
        "in the order of rows, and are read in that of columns,": theirs.reshape(width, height).t(),
        "one block too far on": theirs.flatten().roll(1).view(height, width),
        "one block too far back": theirs.flatten().roll(-1).view(height, width),
        "one row too far on": theirs.roll(1, 0),
        "one row too far back": theirs.roll(-1, 0),
    }
    for words, order in orders.items():
        if ((ours / order - 1).abs() < RATIO - 1).float().mean() > 0.9:
            return f"the scales lie {words}"
    return "the scales are not those of the codes"
