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

SPACING = {torch.float32: 2.0**-22, torch.float16: 2.0**-10, torch.bfloat16: 2.0**-7}
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
        rounded: the blocks with the source's scale or offset, rounded.
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


def compare_codes(weight: Weight, sources: Sequence[SourceCodes], dtype: torch.dtype) -> CodeComparison:
    """Compare all of a weight, a few million codes at a time.

    Args:
        dtype: the type that scales and offsets may have been rounded to; float32 for none.
    """
    found = CodeComparison()
    for source in sources:
        columns = source.columns(weight.order)
        blocks, size = block_of_each(source, columns, weight, found)
        for rows in source.chunks():
            _add(found, weight, source, rows, columns, blocks, size, dtype)
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
    dtype: torch.dtype,
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
    other_scales = scales != wanted
    rounded = other_scales & (scales == wanted.to(dtype).float())
    other_scales &= ~rounded
    zeros = source.parameters.zero_points[rows.start : rows.stop, blocks].float()
    codes = source.grid.codes(rows)[:, columns].float() - expand_blocks(zeros, size, width)
    steps = codes - part.codes
    usual, constant = _usual_steps(steps, size)
    given, own = torch.zeros_like(wanted) if offsets is None else offsets, source.offsets(rows, blocks)
    # An offset may stand for a zero point: scale * (code - zero) + offset is the same with both elsewhere.
    moved = own + usual * wanted
    near = (given - moved).abs() <= SPACING[dtype] * torch.maximum(own.abs(), (usual * wanted).abs())
    same_offsets = torch.where(usual == 0, (given == own) | (given == own.to(dtype).float()), near)
    shifted = constant & (usual != 0) & ~same_offsets
    rounded |= same_offsets & (given != own) & (usual == 0)
    found.rounded += int(rounded.sum())
    found.blocks += wanted.numel()
    found.scales.add(other_scales, here, 0, size)
    found.offsets.add(constant & ~same_offsets & ~shifted, here, 0, size)
    found.zero_points.add(shifted, here, 0, size)
    found.steps.update(int(step) for step in usual[shifted][:10_000].tolist())
    found.codes.add(steps != expand_blocks(usual, size, width), here, 0)


def _usual_steps(steps: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Return by how much most codes of each block of [n, k] differ, [n, KB], and whether all do by as much.

    A block of one column has no usual difference: it is 0.
    """
    if size == 1:
        return torch.zeros_like(steps), steps == 0
    if gap := -steps.shape[1] % size:
        steps = torch.cat([steps, steps[:, -1:].expand(-1, gap)], 1)
    blocks = steps.reshape(len(steps), -1, size)
    usual = blocks.amin(-1)
    constant = usual == blocks.amax(-1)
    if not constant.all():
        usual[~constant] = blocks[~constant].median(-1).values
    return usual, constant
