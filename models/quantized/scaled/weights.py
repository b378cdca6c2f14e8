"""Weights that are codes times scales, or floats of 8 bits times scales."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ....errors import CheckpointError
from ...storage.store import TensorStore
from ...weight_source import TensorInfo
from ..weights import BlockGrid, BlockParameters
from .codes import Codes
from .stored import REMEDY
from .tables import Table


@dataclass(frozen=True)
class CodedWeight:
    """A weight [N, K] of ``scale * (code - zero_point) + offset``: a quantized weight and its own grid.

    Args:
        block_size: the number of columns that share a scale; K for one scale a row.
        zero: the zero point of all blocks, or one for each.
        groups: int64 [K], the block of each column where columns are not in the order of their blocks.
    """

    info: TensorInfo
    format: str
    stored_bytes: int
    source: Codes
    block_size: int
    scales: Table
    zero: Table | int
    offsets: Table | None = None
    groups: Tensor | None = None

    @property
    def grid(self) -> BlockGrid:
        """Itself."""
        return self

    @property
    def bits(self) -> int:
        """The bits of a code."""
        return max(2, self.source.bits)

    @property
    def order(self) -> Tensor | None:
        """int64 [K]: the column of each code in the order of blocks."""
        return self._sorted_columns

    @cached_property
    def _sorted_columns(self) -> Tensor | None:
        return None if self.groups is None else torch.argsort(self.groups, stable=True)

    def parameters(self) -> BlockParameters:
        """Read what the blocks share."""
        rows = range(self.info.shape[0])
        scales = self.scales.rows(rows)
        zeros = (
            torch.full(scales.shape, self.zero, dtype=torch.uint8)
            if isinstance(self.zero, int)
            else self.zero.rows(rows).contiguous()
        )
        return BlockParameters(scales, zeros, None if self.offsets is None else self.offsets.rows(rows))

    def codes(self, rows: range) -> Tensor:
        """Read the codes of some rows, uint8 [n, K], in the order of blocks."""
        codes = self.source.read(rows, range(self.info.shape[1]))
        return codes if self.order is None else codes[:, self.order]

    def values(self, rows: range, columns: range) -> Tensor:
        """Read a part of it, float32 [n, k]."""
        at = torch.arange(columns.start, columns.stop)
        block = at // self.block_size if self.groups is None else self.groups[at]
        numbers = self.source.read(rows, columns).to(torch.float32)
        if isinstance(self.zero, int):
            numbers -= self.zero
        else:
            numbers -= self.zero.rows(rows)[:, block]
        numbers *= self.scales.rows(rows)[:, block]
        if self.offsets is not None:
            numbers += self.offsets.rows(rows)[:, block]
        return numbers


@dataclass(frozen=True)
class Float8Weight:
    """A weight [N, K] of floats of 8 bits, times a scale for each block of ``width`` columns where it has any."""

    info: TensorInfo
    format: str
    stored_bytes: int
    store: TensorStore
    name: str
    width: int
    scales: Table | None

    @property
    def grid(self) -> None:
        """None: floats are not on a grid of whole numbers."""
        return None

    def values(self, rows: range, columns: range) -> Tensor:
        """Read a part of it, float32 [n, k].

        Raises:
            CheckpointError: some numbers are NaN or infinite.
        """
        numbers = self.store.read(self.name, rows, columns).to(torch.float32)
        if not bool(numbers.isfinite().all()):
            raise CheckpointError(
                f"{self.info.file}: tensor {self.name} has weights that are NaN or infinite; {REMEDY}"
            )
        if self.scales is not None:
            numbers *= self.scales.rows(rows)[:, torch.arange(columns.start, columns.stop) // self.width]
        return numbers


def read_groups(store: TensorStore, name: str, width: int, blocks: int, block_size: int) -> Tensor | None:
    """Return the block of each of K columns, int64 [K]; None where columns are in the order of their blocks.

    All -1 stands for that order too.

    Raises:
        CheckpointError: the tensor is not [K], a block is out of range or does not have its number of columns.
    """
    info = store.tensors[name]
    if info.shape != (width,):
        raise CheckpointError(
            f"{info.file}: tensor {name} has the shape {list(info.shape)}, and the weight has {width:,} columns; "
            f"{REMEDY}"
        )
    groups = store.read(name).to(torch.int64)
    plain = torch.arange(width) // block_size
    if bool((groups == -1).all()) or torch.equal(groups, plain):
        return None
    if bool(((groups < 0) | (groups >= blocks)).any()):
        raise CheckpointError(
            f"{info.file}: tensor {name} names group {int(groups.min() if groups.min() < 0 else groups.max())}, and "
            f"the weight has {blocks:,} groups; {REMEDY}"
        )
    if not torch.equal(torch.bincount(groups, minlength=blocks), torch.bincount(plain, minlength=blocks)):
        raise CheckpointError(
            f"{info.file}: tensor {name} does not put {block_size:,} columns into each of {blocks:,} groups; {REMEDY}"
        )
    return groups
