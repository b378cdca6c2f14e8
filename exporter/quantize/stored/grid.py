"""A checkpoint's codes, scales and zero points in a format that MatMulNBits and GatherBlockQuantized take.

The operators take 4 and 8 bits, and 5 with intaglio's kernels, blocks of 16 to 256 (of 32 and more in 5 bits), zero
points that are whole numbers, and no offsets (onnxruntime/docs/ContribOperators.md). So

- codes of 2 and 3 bits are stored in 4, those of 5 to 7 in 8 where they do not fit 5, shifted so that zero is the
  middle;
- a group longer than a block becomes several blocks with the same scale;
- an offset that is a whole multiple of its block's scale becomes a zero point. Any other offset stays one, and becomes
  the value of the middle code: ``scale * (code - zero) + offset == scale * (code - middle) + moved``. The product of
  these with the sums of blocks of activations is added to MatMulNBits' (``passes.stored_inputs``).

None of this rounds but ``moved``, to float32.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ....models.quantized.weights import BlockGrid, BlockParameters
from ..formats.blocks import BLOCK_SIZES, LOW_STEP, BlockFormat, QuantizedRows
from ..formats.scheme import ColumnOrder, Scheme, StoredFloat

LARGEST = 128
"""The largest block that a longer group is split into: 4 bits in blocks of 256 fail on CUDA."""

ROW_SIZES = {4: LARGEST, 5: 32, 8: 32}
"""The block size of a row with one scale, by bits. Activations have a scale for each block as well, and beside weights
of 8 bits their error counts most."""


class GridError(Exception):
    """A grid that the operators cannot hold; its text is the reason."""


@dataclass(frozen=True)
class FittedGrid:
    """The blocks of a weight [N, K] in the operators' format, KB to a row.

    Args:
        scales: float32 [N, KB].
        zero_points: uint8 [N, KB].
        offsets: float32 [N, KB]; None where no block has one.
        shift: int16 [N, KB], what is added to the grid's codes; None for nothing.
    """

    grid: BlockGrid
    format: BlockFormat
    scales: Tensor
    zero_points: Tensor
    offsets: Tensor | None
    shift: Tensor | None

    def scheme(self, accuracy_level: int) -> Scheme:
        order = self.grid.order
        return Scheme(
            self.format,
            "stored",
            accuracy_level,
            scale_type=_type(self.scales / self.format.scaling),
            offset_type=None if self.offsets is None else _type(self.offsets),
            order=None if order is None else ColumnOrder.of(order),
        )

    def rows(self, rows: range) -> QuantizedRows:
        """Read some rows, in the grid's order of columns."""
        part = slice(rows.start, rows.stop)
        codes = self.grid.codes(rows)
        if self.shift is not None:
            size, columns = self.format.block_size, codes.shape[1]
            codes = (codes + self.shift[part].repeat_interleave(size, 1)[:, :columns]).to(torch.uint8)
        offsets = None if self.offsets is None else self.offsets[part]
        return QuantizedRows(self.format, codes, self.scales[part], self.zero_points[part], offsets)


def fit_grid(grid: BlockGrid, shape: tuple[int, int], *, looked_up: bool, five_bits: bool = False) -> FittedGrid:
    """Fit the grid of a weight [N, K]; its codes are not read.

    Args:
        looked_up: the weight is an embedding, which GatherBlockQuantized takes without zero points in MatMulNBits'
            layout: they become offsets.
        five_bits: codes of 5 bits stay so, for intaglio's kernels.

    Raises:
        GridError: the operators have no such blocks.
    """
    rows, columns = shape
    bits = 4 if grid.bits <= 4 else 8
    size = _block_size(grid.block_size, columns, bits)
    if five_bits and grid.bits == 5 and size >= LOW_STEP:
        bits = 5
    given = grid.parameters()
    scales, middle, top = given.scales, 1 << bits - 1, (1 << grid.bits) - 1
    assert given.scales.shape == given.zero_points.shape == (rows, -(-columns // min(grid.block_size, columns)))
    points, offsets = _without_multiples(given, grid.bits, bits)
    if offsets is None:  # a block of zeros has any zero point
        points = torch.where(scales == 0, 1 << grid.bits - 1, points)
    symmetric = True
    shift = None
    if _shiftable(points, top, middle):
        if (points != middle).any():
            shift = (middle - points).to(torch.int16)
        points = torch.full_like(points, middle)
    elif offsets is None and not looked_up:
        symmetric = False
    else:
        moved = scales.double() * (middle - points)
        offsets = (moved if offsets is None else moved + offsets.double()).float()
        points = torch.full_like(points, middle)
    format = BlockFormat(bits, size, symmetric)
    count, repeat = format.blocks(columns), -(-min(grid.block_size, columns) // size)

    def spread(values: Tensor) -> Tensor:
        return values if repeat == 1 else values.repeat_interleave(repeat, 1)[:, :count]

    return FittedGrid(
        grid,
        format,
        spread(scales),
        spread(points.to(torch.uint8)),
        None if offsets is None else spread(offsets),
        None if shift is None else spread(shift),
    )


def _block_size(group: int, columns: int, bits: int) -> int:
    """Return the size of the blocks for a size of groups."""
    if group in BLOCK_SIZES and group <= columns:
        return group
    row = group >= columns
    sizes = [size for size in BLOCK_SIZES if size <= (ROW_SIZES[bits] if row else LARGEST)]
    whole = [size for size in sizes if min(group, columns) % size == 0]
    if whole:
        return whole[-1]
    if row:  # the last block is padded
        return BLOCK_SIZES[0]
    known = ", ".join(map(str, BLOCK_SIZES))
    raise GridError(f"it has groups of {group}, and ONNX Runtime's kernels take multiples of {known}")


def _without_multiples(given: BlockParameters, bits: int, stored_bits: int) -> tuple[Tensor, Tensor | None]:
    """Return zero points, int32, and the offsets, or None where every one is a zero point that can be stored."""
    points = given.zero_points.to(torch.int32)
    if given.offsets is None or not given.offsets.any():
        return points, None
    scales, offsets = given.scales.double(), given.offsets.double()
    multiples = torch.where(scales == 0, 0.0, offsets / scales).round()
    if not torch.equal(multiples * scales, offsets) or multiples.abs().max() > 1 << 16:
        return points, given.offsets
    moved = points - multiples.to(torch.int32)
    moved = torch.where(scales == 0, 1 << bits - 1, moved)
    top, middle = (1 << bits) - 1, 1 << stored_bits - 1
    in_range = bool(((moved >= 0) & (moved < 2 * middle)).all())
    return (moved, None) if in_range or _shiftable(moved, top, middle) else (points, given.offsets)


def _shiftable(points: Tensor, top: int, middle: int) -> bool:
    """Return true if codes up to ``top`` fit their bits once every zero point is moved to the middle."""
    return bool(((points <= middle) & (top - points < middle)).all())


def _type(values: Tensor) -> StoredFloat:
    """Return the narrowest type that holds all of the values."""
    return "float16" if torch.equal(values.half().float(), values) else "float32"
