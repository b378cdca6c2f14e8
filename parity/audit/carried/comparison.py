"""The comparison of a stored weight's codes, scales, zero points and offsets with the checkpoint's."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..comparison import Occurrences
from ..layouts import Weight
from ..stored import BlockPart, expand_blocks
from .source import SourceCodes

SPACING = 2.0**-22
"""The part of a block's zero point times its scale within which an offset may stand for it: two roundings."""


@dataclass
class CodeComparison:
    """The differences of a stored weight's codes from the checkpoint's.

    Attributes:
        blocks: the number of blocks that were compared.
        codes: the codes that differ, apart from those of ``zero_points``.
        zero_points: the blocks whose codes all differ from their zero point by the same other number.
        steps: by how much those zero points are too large, with the number of blocks.
        scales, offsets: the blocks that have another.
        rounded: the blocks with the source's scale, rounded to float16.
        mixed: the first column of a block whose columns belong to several blocks of the source; None without any.
    """

    blocks: int = 0
    codes: Occurrences = field(default_factory=Occurrences)
    zero_points: Occurrences = field(default_factory=Occurrences)
    scales: Occurrences = field(default_factory=Occurrences)
    offsets: Occurrences = field(default_factory=Occurrences)
    steps: Counter[int] = field(default_factory=Counter)
    rounded: int = 0
    mixed: int | None = None

    @property
    def same(self) -> bool:
        return not (self.codes.count or self.zero_points.count or self.scales.count or self.offsets.count)


def compare_codes(weight: Weight, sources: Sequence[SourceCodes], *, half: bool) -> CodeComparison:
    """Compare all of a weight, a few million codes at a time.

    Args:
        half: the scales and offsets may be those of the source, rounded to float16.
    """
    found = CodeComparison()
    for source in sources:
        columns = source.columns(weight.order)
        blocks, size = block_of_each(source, columns, weight, found)
        for rows in source.chunks():
            _add(found, weight, source, rows, columns, blocks, size, half=half)
    return found


def block_of_each(source: SourceCodes, columns: Tensor, weight: Weight, found: CodeComparison) -> tuple[Tensor, int]:
    """Return the source's block of each block of the weight, and the size of those blocks.

    Where a block of the weight holds columns of several blocks, each column counts as a block.
    """
    size = min(weight.block_size or 1, weight.shape[1])
    blocks = source.blocks(columns)
    first = blocks[::size]
    other = (blocks != first.repeat_interleave(size)[: len(blocks)]).nonzero()
    if not len(other):
        return first, size
    found.mixed = int(other[0]) // size * size
    return blocks, 1


def _add(
    found: CodeComparison,
    weight: Weight,
    source: SourceCodes,
    rows: range,
    columns: Tensor,
    blocks: Tensor,
    size: int,
    *,
    half: bool,
) -> None:
    here = range(source.first + rows.start, source.first + rows.stop)
    part = weight.read(here, range(weight.shape[1]))
    assert isinstance(part, BlockPart)
    width = len(columns)
    scales, offsets = part.scales, part.offsets
    if size != min(weight.block_size or 1, width):  # one for each column
        scales = expand_blocks(scales, weight.block_size or 1, width)
        offsets = None if offsets is None else expand_blocks(offsets, weight.block_size or 1, width)
    wanted = source.parameters.scales[rows.start : rows.stop, blocks]
    other_scales = ~(scales == wanted)
    if half:
        rounded = other_scales & (scales == wanted.half().float())
        other_scales &= ~rounded
        found.rounded += int(rounded.sum())
    zeros = source.parameters.zero_points[rows.start : rows.stop, blocks].float()
    codes = source.grid.codes(rows)[:, columns].float() - expand_blocks(zeros, size, width)
    steps = codes - part.codes
    least, most = _extremes(steps, size)
    shifted = (least == most) & (least != 0) if size > 1 else torch.zeros_like(least, dtype=torch.bool)
    given, own = torch.zeros_like(wanted) if offsets is None else offsets, source.offsets(rows, blocks)
    off = given - own
    if half:
        off = torch.where(given == own.half().float(), 0.0, off)
    # An offset may stand for a zero point, up to the rounding of either.
    moved = shifted & ((off - least * wanted).abs() <= SPACING * (least * wanted).abs())
    found.blocks += wanted.numel()
    found.scales.add(other_scales, here, 0, size)
    found.offsets.add((off != 0) & ~moved, here, 0, size)
    found.zero_points.add(shifted & ~moved, here, 0, size)
    found.steps.update(int(step) for step in least[shifted & ~moved][:10_000].tolist())
    found.codes.add((steps != 0) & ~expand_blocks(shifted, size, width), here, 0)


def _extremes(values: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Return the least and the greatest value of each block of [n, k], each [n, KB]."""
    if gap := -values.shape[1] % size:
        values = torch.cat([values, values[:, -1:].expand(-1, gap)], 1)
    blocks = values.reshape(len(values), -1, size)
    return blocks.amin(-1), blocks.amax(-1)
