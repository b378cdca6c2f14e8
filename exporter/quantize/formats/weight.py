"""The recipe of a quantized weight: one pass over its rows gives codes, scales and zero points.

Each operator takes them in a layout of its own: ``nbits`` for MatMulNBits and GatherBlockQuantized, ``standard`` for
DequantizeLinear, ``channels`` for MatMulIntegerToFloat.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from math import prod
from typing import Protocol

import torch
from torch import Tensor

from ....artifact import Quantization, TensorEntry
from ....models.weight_source import WeightSource
from ...weights import InTurn, Stacked, Stored, Stream, Write
from ..fixed_order import total
from .blocks import QuantizedRows
from .scheme import Scheme

CODES, LOW_BITS, SCALES, ZERO_POINTS, OFFSETS = "codes", "low_bits", "scales", "zero_points", "offsets"
"""The keys of the streams; also the suffixes of their names in the graph."""

OFFSET_ROWS = f"{OFFSETS}.rows"


class RowSource(Protocol):
    """The quantized rows of a weight [N, K]."""

    @property
    def inner(self) -> Stored | Stacked | InTurn: ...

    @property
    def scheme(self) -> Scheme: ...

    def rows(self, checkpoint: WeightSource) -> Iterator[tuple[Tensor, QuantizedRows]]:
        """Yield consecutive rows: in float32 [n, K], and quantized; both in the order of the scheme."""
        ...


class QuantizedWeight(ABC):
    """A weight [N, K] in blocks, KB to a row, in the layout of a subclass.

    Codes go to the file while the rows are quantized. Scales and zero points are small: they are collected and written
    after the codes.
    """

    def __init__(self, source: RowSource) -> None:
        *rows, columns = source.inner.shape
        self.source = source
        self.format = source.scheme.format
        self.shape = (prod(rows), columns)
        self.blocks = self.format.blocks(columns)

    @property
    def codes(self) -> Stream:
        return Stream(self, CODES, self._codes_shape(), self.source.inner.sources)

    @property
    def scales(self) -> Stream:
        return Stream(self, SCALES, self._scales_shape())

    @property
    def zero_points(self) -> Stream:
        return Stream(self, ZERO_POINTS, self._zero_points_shape())

    @property
    def offsets(self) -> Stream:
        """The offsets of blocks [KB, N], to multiply sums of activations by."""
        return Stream(self, OFFSETS, (self.blocks, self.shape[0]))

    @property
    def offset_rows(self) -> Stream:
        """The same as [N, KB], to look up."""
        return Stream(self, OFFSET_ROWS, (self.shape[0], self.blocks))

    def write(self, checkpoint: WeightSource, write: Write) -> Mapping[str, TensorEntry]:
        scales = torch.empty(self.shape[0], self.blocks)
        zeros = 0 if self.format.symmetric else self.format.zero_point_bytes(self.blocks)
        zero_points = torch.empty(self.shape[0], zeros, dtype=torch.uint8)
        offsets = torch.zeros(self.shape[0], 0 if self.source.scheme.offset_type is None else self.blocks)
        squared_error = squared_weight = 0.0

        def collected() -> Iterator[QuantizedRows]:
            nonlocal squared_error, squared_weight
            start = 0
            for weight, quantized in self.source.rows(checkpoint):
                stop = start + len(weight)
                squared_weight += total(weight.square())
                squared_error += total(quantized.dequantize().sub_(weight).square_())
                scales[start:stop] = quantized.scales
                if quantized.offsets is not None:
                    offsets[start:stop] = quantized.offsets
                if not self.format.symmetric:
                    zero_points[start:stop] = quantized.packed_zero_points()
                start = stop
                yield quantized

        for key, piece in self._pack_codes(collected()):
            write(key, piece)
        write(SCALES, self._pack_scales(scales))
        if not self.format.symmetric:
            for key, piece in self._pack_zero_points(zero_points):
                write(key, piece)
        if offsets.numel():
            write(OFFSETS, offsets.t())
            write(OFFSET_ROWS, offsets)
        error = (squared_error / squared_weight) ** 0.5 if squared_weight else 0.0
        return {CODES: self._entry(error)}

    def _entry(self, error: float) -> TensorEntry:
        scheme = self.source.scheme
        facts = Quantization(
            bits=self.format.bits,
            block_size=self.format.block_size,
            symmetric=self.format.symmetric,
            method=scheme.method,
            accuracy_level=scheme.accuracy_level,
            error=error,
            kl_estimate=scheme.kl_estimate,
        )
        return TensorEntry(f"int{self.format.bits}", self.shape, self.source.inner.sources, facts)

    @abstractmethod
    def _codes_shape(self) -> tuple[int, ...]: ...

    def _scales_shape(self) -> tuple[int, ...]:
        return (self.shape[0], self.blocks)

    @abstractmethod
    def _zero_points_shape(self) -> tuple[int, ...]: ...

    @abstractmethod
    def _pack_codes(self, rows: Iterator[QuantizedRows]) -> Iterator[tuple[str, Tensor]]:
        """Yield key and values of chunks of the codes; ``rows`` must be consumed to the end."""
        ...

    def _pack_scales(self, scales: Tensor) -> Tensor:
        """Lay out the scales, float32 [N, KB]."""
        return scales

    @abstractmethod
    def _pack_zero_points(self, packed: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Yield key and values of each stream of zero points, from uint8 [N, ceil(KB * bits / 8)]."""
        ...
