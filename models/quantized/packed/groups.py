"""The groups of columns that share a scale, by position or by GPTQ's ``g_idx``."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Groups:
    """The groups of the K columns of a weight.

    Args:
        of_column: int64 [K]: the group of each column.
        order: int64 [K]: the columns sorted by group; None where they are in that order.
        block_size: the largest number of sorted columns such that no block of them has two groups.
        of_block: int64 [KB]: the group of each block.
    """

    of_column: Tensor
    order: Tensor | None
    block_size: int
    of_block: Tensor


def consecutive(columns: int, size: int) -> Groups:
    """Return groups of ``size`` consecutive columns, of which the last may have fewer."""
    return indexed(torch.arange(columns) // size)


def indexed(of_column: Tensor) -> Groups:
    """Return the groups of an index, int64 [K] of at least one column, with group numbers from 0."""
    ordered = bool((of_column[1:] >= of_column[:-1]).all())
    order = None if ordered else torch.argsort(of_column, stable=True)
    by_group = of_column if order is None else of_column[order]
    columns = by_group.shape[0]
    starts = torch.nonzero(by_group[1:] != by_group[:-1]).flatten() + 1
    block_size = math.gcd(*starts.tolist()) if starts.numel() else columns
    return Groups(of_column, order, block_size, by_group[::block_size])
