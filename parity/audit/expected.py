"""What a stored weight should hold: tensors of the checkpoint, one below the other, read in parts.

A vector is a matrix of one row here, and vectors lie side by side.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ...errors import ArtifactError
from ...models.checkpoint import Checkpoint

PIECE = 1 << 21
"""About how many weights are compared at once."""


@dataclass(frozen=True)
class Expected:
    """[N, K] from ``sources``.

    Args:
        rows_by: [N], what each row is multiplied by; None for nothing.
        columns_by: [K], likewise.
        noise: how uncertain those factors are, relatively.
        through: a type that the numbers were rounded to before; an artifact in fp16 may have been quantized.
    """

    checkpoint: Checkpoint
    sources: tuple[str, ...]
    rows_by: Tensor | None = field(default=None, compare=False)
    columns_by: Tensor | None = field(default=None, compare=False)
    noise: float = 0.0
    through: torch.dtype | None = None

    @property
    def lengths(self) -> tuple[int, ...]:
        """Of the sources, along the dimension in which they are joined."""
        return tuple(self.checkpoint.tensors[name].shape[0] for name in self.sources)

    @property
    def vector(self) -> bool:
        return len(self.checkpoint.tensors[self.sources[0]].shape) == 1

    @property
    def shape(self) -> tuple[int, int]:
        total = sum(self.lengths)
        return (1, total) if self.vector else (total, self.checkpoint.tensors[self.sources[0]].shape[1])

    @property
    def scaled(self) -> bool:
        return self.rows_by is not None or self.columns_by is not None

    def place(self, source: str) -> range:
        """Where a source's rows lie; of a vector, its columns."""
        index = self.sources.index(source)
        first = sum(self.lengths[:index])
        return range(first, first + self.lengths[index])

    def named(self, row: int) -> str:
        """A row in the words of the checkpoint."""
        for source in self.sources:
            if row in (place := self.place(source)):
                return f"row {row - place.start:,} of {source}"
        return f"row {row:,}"

    def pieces(self, *, by_columns: bool, multiple: int = 1) -> Iterator[tuple[range, range, Tensor]]:
        """All of it: rows, columns, and the numbers there in float32.

        Args:
            by_columns: ranges of whole columns, each but the last a ``multiple`` long; else ranges of whole rows.
        """
        rows, columns = self.shape
        if self.vector:
            for source in self.sources:
                yield range(1), self.place(source), self._numbers(self.checkpoint.tensor(source)[None], source)
        elif by_columns:
            step = max(1, PIECE // (rows * multiple)) * multiple
            for start in range(0, columns, step):
                across = range(start, min(start + step, columns))
                parts = [self.checkpoint.columns(name, across.start, across.stop) for name in self.sources]
                yield range(rows), across, self._scaled(torch.cat(parts), range(rows), across)
        else:
            for source in self.sources:
                first = self.place(source).start
                for start, part in self.checkpoint.rows(source, 2 * PIECE):
                    for few in torch.split(part, max(1, PIECE // columns)):
                        down = range(first + start, first + start + len(few))
                        start += len(few)
                        yield down, range(columns), self._scaled(few, down, range(columns))

    def whole(self) -> Tensor:
        """All of it at once, float32 [N, K]."""
        return torch.cat([part for _, _, part in self.pieces(by_columns=False)], 1 if self.vector else 0)

    def of(self, sources: Sequence[str]) -> "Expected":
        """The same of other tensors, without the scales that were folded into these."""
        return replace(self, sources=tuple(sources), rows_by=None, columns_by=None)

    def _numbers(self, part: Tensor, source: str) -> Tensor:
        return self._scaled(part, range(1), self.place(source))

    def _scaled(self, part: Tensor, rows: range, columns: range) -> Tensor:
        numbers = part.float() if self.through is None else part.to(self.through).float()
        if self.rows_by is not None:
            numbers = numbers * self.rows_by[rows.start : rows.stop, None]
        if self.columns_by is not None:
            numbers = numbers * self.columns_by[columns.start : columns.stop]
        return numbers


def expected_of(checkpoint: Checkpoint, sources: Sequence[str], where: str) -> Expected:
    """
    Raises:
        ArtifactError: the checkpoint has no such tensors, or they do not fit together.
    """
    missing = [name for name in sources if name not in checkpoint.tensors]
    if missing:
        raise ArtifactError(
            f"{where} was made from the tensor {missing[0]}, and {checkpoint.folder} has none of that name; "
            "give the checkpoint that the artifact was made from"
        )
    ends = {checkpoint.tensors[name].shape[1:] for name in sources}
    if len(ends) > 1 or any(len(end) > 1 for end in ends):
        shapes = ", ".join(f"{name} {checkpoint.tensors[name].shape}" for name in sources)
        raise ArtifactError(
            f"{where} is said to be made from tensors that do not fit together ({shapes}); export the model again"
        )
    return Expected(checkpoint, tuple(sources))
