"""What is wrong with blocks of a quantized weight: their scales, their zero points or their codes."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ...artifact import TensorEntry
from .comparison import Comparison, by_block, not_nearest
from .expected import Expected
from .reading.layouts import Weight
from .reading.stored import BlockPart, expand_blocks

MAX_RATIO = {"rtn": 2.5, "awq": 2.5}
"""The error that a block may have, as a multiple of its tensor's recorded error; 4 for other methods."""

ALIKE = 0.9
"""The cosine from which codes belong to their block, whatever its scale."""

SCALE_RATIO = 1.2
"""The factor from which a scale does not fit its codes."""

FEW = 0.25
"""The share of a block's codes up to which single codes are wrong."""


@dataclass
class _Blocks:
    """Blocks with the same fault: their number, the first of them, and a value for each."""

    count: int = 0
    row: int = 0
    column: int = 0
    values: list[float] = field(default_factory=list)

    def add(self, where: Tensor, rows: range, columns: range, size: int, values: Tensor | None = None) -> None:
        indices = where.nonzero()
        if len(indices) and not self.count:
            row, block = indices[0].tolist()
            self.row, self.column = rows.start + row, columns.start + block * size
        self.count += len(indices)
        if values is not None and len(self.values) < 10_000:
            self.values += values[where].tolist()


@dataclass
class _Faults:
    """The faulty blocks of a weight, by what is wrong with them."""

    sign: _Blocks = field(default_factory=_Blocks)
    zero_point: _Blocks = field(default_factory=_Blocks)
    scale: _Blocks = field(default_factory=_Blocks)
    single_codes: _Blocks = field(default_factory=_Blocks)
    codes: _Blocks = field(default_factory=_Blocks)


def diagnose_blocks(weight: Weight, expected: Expected, entry: TensorEntry, comparison: Comparison) -> str | None:
    """Return what is wrong with the blocks that did not come from rounding.

    None where most of them have codes of other numbers.
    """
    assert entry.quantization is not None
    faults = _Faults()
    limit = MAX_RATIO.get(entry.quantization.method, 4.0) * entry.quantization.error
    for rows, columns, numbers in _whole_blocks(weight, expected):
        part = weight.read(rows, columns)
        assert isinstance(part, BlockPart)
        _classify(part, numbers, expected, comparison, limit, rows, columns, faults)
    most = max((faults.sign, faults.zero_point, faults.scale, faults.single_codes), key=lambda blocks: blocks.count)
    if not most.count or faults.codes.count > most.count:
        return None
    size = min(comparison.block_size or 1, expected.shape[1])
    last = min(most.column + size, expected.shape[1]) - 1
    first = f"{expected.describe_row(most.row)}, columns {most.column:,} to {last:,}"
    where = f"in {most.count:,} of its {comparison.blocks:,} blocks, the first in {first}"
    if most is faults.sign:
        return f"the sign of the scale is flipped {where}"
    if most is faults.zero_point:
        steps, times = Counter(int(value) for value in most.values).most_common(1)[0]
        mostly = "" if times == len(most.values) else "mostly "
        return f"the zero point is off by {mostly}{steps:+d} {where}"
    if most is faults.single_codes:
        return f"single codes are not the nearest to the source's numbers {where}"
    return f"{_diagnose_scales(weight, expected, most)} {where}"


def _whole_blocks(weight: Weight, expected: Expected) -> Iterator[tuple[range, range, Tensor]]:
    size = weight.block_size or 1
    by_rows = size >= expected.shape[1]
    return expected.chunks(by_columns=weight.by_columns and not by_rows, column_step=1 if by_rows else size)


def _classify(
    part: BlockPart,
    numbers: Tensor,
    expected: Expected,
    comparison: Comparison,
    limit: float,
    rows: range,
    columns: range,
    faults: _Faults,
) -> None:
    """Add the faulty blocks of a part, each to the first fault that it shows."""
    assert comparison.block_size is not None
    size = min(comparison.block_size, expected.shape[1])
    error = part.values - numbers
    counts = by_block(torch.ones_like(numbers[:1]), size)
    squares, code_squares = by_block(numbers.square(), size), by_block(part.codes.square(), size)
    product = by_block(numbers * part.codes, size)
    cosine = product / (squares * code_squares).sqrt().clamp(min=1e-30)
    relative = (by_block(error.square(), size) / squares.clamp(min=1e-30)).sqrt()
    mean = by_block(error, size) / counts
    steps = mean / part.scales
    variance = by_block((error - expand_blocks(mean, size, len(columns))).square(), size) / counts
    shifted = (steps.abs() > 0.5) & ((steps - steps.round()).abs() < 0.35)
    shifted &= variance.sqrt() < 0.75 * part.scales.abs()
    flipped = (cosine * part.scales.sign() < -ALIKE) & (counts >= 2)
    ratio = product / code_squares.clamp(min=1e-30) / part.scales
    not_nearest_codes = torch.zeros_like(cosine)
    if comparison.strict:
        not_nearest_codes = by_block(not_nearest(part, numbers, expected.uncertainty, size).float(), size)
    faulty = (relative > limit) | flipped | (steps.abs() > 0.5) | (not_nearest_codes > 0)
    flipped = flipped & faulty
    shifted = shifted & faulty & ~flipped
    misfit = (cosine.abs() > ALIKE) & ((ratio > SCALE_RATIO) | (ratio < 1 / SCALE_RATIO))
    misfit &= faulty & ~flipped & ~shifted
    few = (not_nearest_codes > 0) & (not_nearest_codes <= (FEW * counts).clamp(min=1))
    single = faulty & ~flipped & ~shifted & ~misfit & few
    rest = faulty & ~flipped & ~shifted & ~misfit & ~single
    faults.sign.add(flipped, rows, columns, size)
    faults.zero_point.add(shifted, rows, columns, size, -steps.round())
    faults.scale.add(misfit, rows, columns, size, 1 / ratio)
    faults.single_codes.add(single, rows, columns, size)
    faults.codes.add(rest, rows, columns, size)


def _diagnose_scales(weight: Weight, expected: Expected, blocks: _Blocks) -> str:
    """Return how the stored scales relate to those that fit the codes."""
    stored, fitting = [], []
    by_columns = weight.by_columns and (weight.block_size or 1) < expected.shape[1]
    for rows, columns, numbers in _whole_blocks(weight, expected):
        part = weight.read(rows, columns)
        assert isinstance(part, BlockPart)
        size = min(weight.block_size or 1, expected.shape[1])
        stored.append(part.scales)
        fitting.append(by_block(numbers * part.codes, size) / by_block(part.codes.square(), size).clamp(min=1e-30))
    actual, fitted = (torch.cat(parts, 1 if by_columns else 0) for parts in (stored, fitting))
    ratios = torch.tensor(blocks.values)
    if ratios.numel() and (ratios / ratios.median() - 1).abs().max() < SCALE_RATIO - 1:
        return f"the scale is {ratios.median().item():.4g} times the one that fits the codes"
    height, width = fitted.shape
    orders = {
        "stored by columns and read by rows": fitted.t().reshape(height, width),
        "stored by rows and read by columns": fitted.reshape(width, height).t(),
        "those of the block before": fitted.flatten().roll(1).view(height, width),
        "those of the block after": fitted.flatten().roll(-1).view(height, width),
        "those of the row before": fitted.roll(1, 0),
        "those of the row after": fitted.roll(-1, 0),
    }
    for description, order in orders.items():
        if ((actual / order - 1).abs() < SCALE_RATIO - 1).float().mean() > 0.9:
            return f"the scales are {description}"
    return "the scales do not fit the codes"
