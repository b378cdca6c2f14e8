"""The quantizer of weights that the checkpoint stores quantized: it yields their own codes."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ....errors import CheckpointError
from ....models.quantized.weights import QuantizedWeight
from ....models.weight_source import WeightSource
from ...weights import Stacked, Stored
from ..formats.blocks import QuantizedRows
from ..formats.scheme import Scheme, Schemes, StoredFloat
from ..formats.weight import RowSource
from .grid import fit_grid

CHUNK = 1 << 22
"""Elements of a weight that are read at once."""


class StoredWeights:
    """The stored weights, from which the graph's passes take quantized rows; the interface of ``solve.Quantizer``.

    Args:
        schemes: by tensor, those that are carried over.
        weights: by tensor.
        checkpoint: the checkpoint to read all other weights from.
        embedding: the tensor whose rows are looked up.
        computes_in: the type that scales and offsets which float16 does not hold are rounded to.
    """

    def __init__(
        self,
        schemes: Schemes,
        weights: Mapping[str, QuantizedWeight],
        checkpoint: WeightSource,
        embedding: str,
        computes_in: torch.dtype = torch.float32,
    ) -> None:
        self.schemes = schemes
        self.weights = weights
        self.checkpoint = checkpoint
        self.embedding = embedding
        self.computes_in = computes_in

    def alike(self, tensors: Sequence[str]) -> bool:
        """Return true if the tensors can be stored as one: in the same format and order, or all in float."""
        return all(self.schemes.get(name) == self.schemes.get(tensors[0]) for name in tensors)

    def blocks(self, weight: Stored | Stacked) -> RowSource | None:
        """Return the rows of a weight in blocks; None for one in float."""
        scheme = self.schemes.get(weight.sources[0])
        if scheme is None:
            return None
        assert self.alike(weight.sources)
        return _StoredRows(weight, scheme, self)

    def channels(self, weight: Stored | Stacked) -> RowSource | None:
        """Return None: no stored weight is one of an integer matrix multiplication."""
        return None


@dataclass(frozen=True)
class _StoredRows:
    """The rows of one weight, or of several side by side, as the checkpoint stores them."""

    inner: Stored | Stacked
    scheme: Scheme
    stored: StoredWeights

    def rows(self, checkpoint: WeightSource) -> Iterator[tuple[Tensor, QuantizedRows]]:
        for part in self.inner.parts if isinstance(self.inner, Stacked) else (self.inner,):
            yield from self._part(part.name, (part.shape[0], part.shape[1]))

    def _part(self, name: str, shape: tuple[int, int]) -> Iterator[tuple[Tensor, QuantizedRows]]:
        weight, (height, width) = self.stored.weights[name], shape
        grid = weight.grid
        assert grid is not None
        five_bits = self.scheme.format.bits == 5
        fitted = fit_grid(grid, shape, looked_up=name == self.stored.embedding, five_bits=five_bits)
        step = max(1, CHUNK // width)
        for start in range(0, height, step):
            rows = range(start, min(start + step, height))
            found = fitted.rows(rows)
            if found.codes.numel() and int(found.codes.max()) > found.format.top:
                raise CheckpointError(
                    f"{weight.info.file}: {name} ({weight.format}) has a code beyond {grid.bits} bits; fetch it again"
                )
            values = weight.values(rows, range(width))
            yield values if grid.order is None else values[:, grid.order], self._as_stored(found)

    def _as_stored(self, rows: QuantizedRows) -> QuantizedRows:
        """Round what float16 does not hold to the type that the graph computes in."""
        if self.stored.computes_in == torch.float32:
            return rows

        def rounded(values: Tensor, type: StoredFloat | None) -> Tensor:
            return values if type == "float16" else values.to(self.stored.computes_in).float()

        offsets = None if rows.offsets is None else rounded(rows.offsets, self.scheme.offset_type)
        scales = rounded(rows.scales, self.scheme.scale_type)
        return QuantizedRows(rows.format, rows.codes, scales, rows.zero_points, offsets)
