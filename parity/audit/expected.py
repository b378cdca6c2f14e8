"""What a stored weight should hold: tensors of the checkpoint, stacked, and read in chunks.

A vector is a matrix of one row here; several vectors are concatenated.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ...errors import ArtifactError
from ...models.checkpoint import Checkpoint

CHUNK = 1 << 21
"""About how many numbers are compared at once."""


@dataclass(frozen=True)
class Expected:
    """The expected numbers [N, K] of a weight.

    Args:
        sources: names of the checkpoint's tensors.
        row_scales: [N], the folded scale of each row; None for none.
        column_scales: [K], the folded scale of each column; None for none.
        uncertainty: the relative uncertainty of those scales.
        via: a dtype that the numbers were rounded to before; an artifact in fp16 may have been quantized.
        order: [K], the tensors' column that each column of the weight holds; None where they are the same.
    """

    checkpoint: Checkpoint
    sources: tuple[str, ...]
    row_scales: Tensor | None = field(default=None, compare=False)
    column_scales: Tensor | None = field(default=None, compare=False)
    uncertainty: float = 0.0
    via: torch.dtype | None = None
    order: Tensor | None = field(default=None, compare=False)

    @property
    def lengths(self) -> tuple[int, ...]:
        """The length of each source along the dimension in which they are joined."""
        return tuple(self.checkpoint.tensors[name].shape[0] for name in self.sources)

    @property
    def is_vector(self) -> bool:
        return len(self.checkpoint.tensors[self.sources[0]].shape) == 1

    @property
    def shape(self) -> tuple[int, int]:
        total = sum(self.lengths)
        return (1, total) if self.is_vector else (total, self.checkpoint.tensors[self.sources[0]].shape[1])

    @property
    def elements(self) -> int:
        return self.shape[0] * self.shape[1]

    @property
    def is_scaled(self) -> bool:
        return self.row_scales is not None or self.column_scales is not None

    def span(self, source: str) -> range:
        """Return the rows of a source; of a vector, its columns."""
        index = self.sources.index(source)
        first = sum(self.lengths[:index])
        return range(first, first + self.lengths[index])

    def describe_row(self, row: int) -> str:
        """Return a row as ``row 5 of model.layers.0.mlp.up_proj.weight``."""
        for source in self.sources:
            if row in (span := self.span(source)):
                return f"row {row - span.start:,} of {source}"
        return f"row {row:,}"

    def chunks(self, *, by_columns: bool, column_step: int = 1) -> Iterator[tuple[range, range, Tensor]]:
        """Yield everything in chunks: rows, columns, and the numbers there in float32.

        Args:
            by_columns: yield whole columns, in multiples of ``column_step``; otherwise, or where the columns are in
                another order, whole rows.
        """
        rows, columns = self.shape
        if self.is_vector:
            for source in self.sources:
                span = self.span(source)
                yield range(1), span, self._scaled(self.checkpoint.tensor(source)[None], range(1), span)
        elif by_columns and self.order is None:
            step = max(1, CHUNK // (rows * column_step)) * column_step
            for start in range(0, columns, step):
                across = range(start, min(start + step, columns))
                parts = [self.checkpoint.columns(name, across.start, across.stop) for name in self.sources]
                yield range(rows), across, self._scaled(torch.cat(parts), range(rows), across)
        else:
            for source in self.sources:
                first = self.span(source).start
                for start, part in self.checkpoint.rows(source, 2 * CHUNK):
                    for few in torch.split(part, max(1, CHUNK // columns)):
                        down = range(first + start, first + start + len(few))
                        start += len(few)
                        yield down, range(columns), self._scaled(few, down, range(columns))

    def whole(self) -> Tensor:
        """Return everything at once, float32 [N, K]."""
        return torch.cat([part for _, _, part in self.chunks(by_columns=False)], 1 if self.is_vector else 0)

    def select_rows(self, rows: Sequence[int]) -> Tensor:
        """Return some rows [n, K], given in ascending order; of a vector, all of it."""
        if self.is_vector:
            return self.whole()
        found, wanted = [], torch.tensor(rows)
        for span, _, part in self.chunks(by_columns=False):
            inside = wanted[(wanted >= span.start) & (wanted < span.stop)]
            found.append(part[inside - span.start])
            if span.stop > rows[-1]:
                break
        return torch.cat(found)

    def of(self, sources: Sequence[str]) -> "Expected":
        """Return the same for other tensors, without folded scales."""
        return replace(self, sources=tuple(sources), row_scales=None, column_scales=None)

    def _scaled(self, part: Tensor, rows: range, columns: range) -> Tensor:
        numbers = part.float() if self.via is None else part.to(self.via).float()
        if self.row_scales is not None:
            numbers = numbers * self.row_scales[rows.start : rows.stop, None]
        if self.column_scales is not None:
            numbers = numbers * self.column_scales[columns.start : columns.stop]
        return numbers if self.order is None else numbers[:, self.order]


def expected_of(checkpoint: Checkpoint, sources: Sequence[str], name: str) -> Expected:
    """Return what the initializer ``name`` should hold if it was made from ``sources``.

    Raises:
        ArtifactError: the checkpoint has no such tensors, or their shapes cannot be joined.
    """
    missing = [source for source in sources if source not in checkpoint.tensors]
    if missing:
        raise ArtifactError(
            f"{name} was made from the tensor {missing[0]}, which {checkpoint.folder} does not have; "
            "give the checkpoint that the artifact was made from"
        )
    row_shapes = {checkpoint.tensors[source].shape[1:] for source in sources}
    if len(row_shapes) > 1 or any(len(shape) > 1 for shape in row_shapes):
        shapes = ", ".join(f"{source} {checkpoint.tensors[source].shape}" for source in sources)
        raise ArtifactError(
            f"{name} is made from tensors whose shapes cannot be joined, by the manifest ({shapes}); "
            "export the model again"
        )
    return Expected(checkpoint, tuple(sources))
