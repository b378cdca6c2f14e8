"""The comparison of a stored weight's codes, scales, zero points and offsets with the checkpoint's."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..comparison import Occurrences
from ..reading.layouts import Weight
from ..reading.stored import BlockPart, expand_blocks
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
        mixed: some block of the weight holds columns of several blocks of the source.
    """

    blocks: int = 0
    codes: Occurrences = field(default_factory=Occurrences)
    zero_points: Occurrences = field(default_factory=Occurrences)
    scales: Occurrences = field(default_factory=Occurrences)
    offsets: Occurrences = field(default_factory=Occurrences)
    steps: Counter[int] = field(default_factory=Counter)
    rounded: int = 0
    mixed: bool = False

    @property
    def same(self) -> bool:
        return not (self.codes.count or self.zero_points.count or self.scales.count or self.offsets.count)


@dataclass(frozen=True)
class ComparedRows:
    """Some rows of a weight beside those of its source, in the weight's order of columns.

    Args:
        rows: of the weight.
        size: the columns of a block; 1 where a block of the weight holds columns of several blocks of the source.
        scales, wanted_scales: [n, KB].
        offsets, wanted_offsets: [n, KB]; those wanted stand for the zero points too, where these are elsewhere.
        zero_points, wanted_zero_points: [n, KB], as distances from the least code.
        steps: [n, K], the source's codes less the weight's, each without its zero point.
        usual: [n, KB], by how much most codes of a block differ.
        constant: bool [n, KB], all codes of a block differ by as much.
        has_offsets: bool [n, KB], the weight or its source has an offset.
    """

    rows: range
    size: int
    scales: Tensor
    wanted_scales: Tensor
    offsets: Tensor
    wanted_offsets: Tensor
    zero_points: Tensor
    wanted_zero_points: Tensor
    steps: Tensor
    usual: Tensor
    constant: Tensor
    has_offsets: Tensor


def compare_codes(weight: Weight, sources: Sequence[SourceCodes], dtype: torch.dtype) -> CodeComparison:
    """Compare all of a weight, a few million codes at a time.

    Args:
        dtype: the type that scales and offsets may have been rounded to; float32 for none.
    """
    found = CodeComparison()
    for source in sources:
        for rows in source.chunks():
            _add(found, compare_rows(weight, source, rows), dtype)
        found.mixed |= source_blocks(weight, source)[1] != _block_size(weight)
    return found


def _add(found: CodeComparison, part: ComparedRows, dtype: torch.dtype) -> None:
    wanted = part.wanted_scales
    scales = part.scales == wanted
    rounded = ~scales & (part.scales == wanted.to(dtype).float())
    # An offset may stand for a zero point: scale * (code - zero) + offset is the same with both elsewhere.
    largest = torch.maximum((part.usual * wanted).abs(), part.wanted_offsets.abs())
    near = (part.offsets - part.wanted_offsets).abs() <= SPACING[dtype] * largest
    exact = part.offsets == part.wanted_offsets
    offsets = exact | torch.where(part.usual == 0, part.offsets == part.wanted_offsets.to(dtype).float(), near)
    zeros = part.constant & (part.usual != 0) & ~part.has_offsets & ~offsets
    rounded |= offsets & ~exact & (part.usual == 0)
    found.blocks += wanted.numel()
    found.rounded += int(rounded.sum())
    found.scales.add(~scales & ~rounded, part.rows, 0, part.size)
    found.offsets.add(part.constant & ~offsets & ~zeros, part.rows, 0, part.size)
    found.zero_points.add(zeros, part.rows, 0, part.size)
    found.steps.update(int(step) for step in part.usual[zeros][:10_000].tolist())
    usual = expand_blocks(part.usual, part.size, part.steps.shape[1])
    found.codes.add(part.steps != usual, part.rows, 0)


def compare_rows(weight: Weight, source: SourceCodes, rows: range) -> ComparedRows:
    """Compare some rows of a source with those that a weight has of it."""
    here = range(source.first + rows.start, source.first + rows.stop)
    width = weight.shape[1]
    part = weight.read(here, range(width))
    assert isinstance(part, BlockPart)
    blocks, size = source_blocks(weight, source)

    def by_block(values: Tensor | None) -> Tensor:
        """Return the weight's values for each block, or for each column."""
        if values is None:
            return torch.zeros(len(rows), len(blocks))
        return values if size == _block_size(weight) else expand_blocks(values, _block_size(weight), width)

    scales = source.parameters.scales[rows.start : rows.stop, blocks]
    zeros = source.parameters.zero_points[rows.start : rows.stop, blocks].float()
    codes = source.grid.codes(rows)[:, source.columns(weight.order)].float()
    steps = codes - expand_blocks(zeros, size, width) - part.codes
    usual, constant = _usual_steps(steps, size)
    own, offsets = source.offsets(rows, blocks), by_block(part.offsets)
    has_offsets = (offsets != 0) | (own != 0) if part.offsets is None else torch.ones_like(constant)
    return ComparedRows(
        here,
        size,
        by_block(part.scales),
        scales,
        offsets,
        own + usual * scales,
        -part.low[:, ::size],
        zeros,
        steps,
        usual,
        constant,
        has_offsets,
    )


def source_blocks(weight: Weight, source: SourceCodes) -> tuple[Tensor, int]:
    """Return the source's block of each block of the weight, and the size of those blocks.

    Where a block of the weight holds columns of several blocks, each column counts as a block.
    """
    size = _block_size(weight)
    blocks = source.blocks(source.columns(weight.order))
    first = blocks[::size]
    if torch.equal(blocks, first.repeat_interleave(size)[: len(blocks)]):
        return first, size
    return blocks, 1


def _block_size(weight: Weight) -> int:
    return min(weight.block_size or 1, weight.shape[1])


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
