"""The codes that a checkpoint stores for the sources of a weight."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ....models.checkpoint import Checkpoint
from ....models.quantized.weights import BlockGrid, BlockParameters

CHUNK = 1 << 22
"""About how many codes are compared at once."""


@dataclass(frozen=True)
class SourceCodes:
    """The codes of one tensor of the checkpoint, which are those of the rows from ``first`` on of a stored weight.

    Args:
        format: the checkpoint's format in words.
        place: int64 [K], the place of each column of the tensor among the codes; None where they are in its order.
    """

    name: str
    format: str
    grid: BlockGrid
    parameters: BlockParameters
    shape: tuple[int, int]
    first: int
    place: Tensor | None

    def columns(self, order: Sequence[int] | None) -> Tensor:
        """Return int64 [K], the place among the codes of each column of a weight with its columns in ``order``."""
        taken = torch.arange(self.shape[1]) if order is None else torch.tensor(order)
        return taken if self.place is None else self.place[taken]

    def blocks(self, columns: Tensor) -> Tensor:
        """Return int64 [K], the block of each of ``columns``."""
        return columns // min(self.grid.block_size, self.shape[1])

    def chunks(self) -> Iterator[range]:
        """Yield ranges of its rows."""
        step = max(1, CHUNK // self.shape[1])
        for start in range(0, self.shape[0], step):
            yield range(start, min(start + step, self.shape[0]))

    def offsets(self, rows: range, blocks: Tensor) -> Tensor:
        """Return the offsets of some blocks, float32 [n, len(blocks)]; zeros where it has none."""
        found = self.parameters.offsets
        if found is None:
            return torch.zeros(len(rows), len(blocks))
        return found[rows.start : rows.stop, blocks]


def source_codes(checkpoint: Checkpoint, sources: Sequence[str]) -> list[SourceCodes] | str:
    """Return the codes of each source of a weight, or why there are none."""
    found, first = [], 0
    for name in sources:
        weight = checkpoint.quantized.get(name)
        if weight is None or weight.grid is None:
            return f"the manifest says that it holds the checkpoint's own codes, and {name} has none"
        rows, columns = weight.info.shape
        order, place = weight.grid.order, None
        if order is not None:
            place = torch.empty(columns, dtype=torch.int64)
            place[order] = torch.arange(columns)
        found.append(
            SourceCodes(name, weight.format, weight.grid, weight.grid.parameters(), (rows, columns), first, place)
        )
        first += rows
    return found
