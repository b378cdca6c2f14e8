"""The layout of MatMulIntegerToFloat: 8-bit weights with one scale for each output channel.

The operator takes whole columns and the checkpoint gives whole rows, so a weight's codes are in memory together, a byte
each.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from ...weights import column_ranges
from .blocks import QuantizedRows, channel_format
from .weight import CODES, QuantizedWeight, RowSource


class ChannelWeight(QuantizedWeight):
    """Codes int8 [K, N], scales float32 [N]; no zero points."""

    def __init__(self, source: RowSource) -> None:
        super().__init__(source)
        assert self.format == channel_format(self.shape[1]), f"{self.format} is not one block for {self.shape[1]}"

    def _codes_shape(self) -> tuple[int, ...]:
        return self.shape[::-1]

    def _scales_shape(self) -> tuple[int, ...]:
        return self.shape[:1]

    def _zero_points_shape(self) -> tuple[int, ...]:
        raise AssertionError("channels are symmetric: they have no zero points")

    def _pack_codes(self, rows: Iterator[QuantizedRows]) -> Iterator[tuple[str, Tensor]]:
        codes = torch.empty(self.shape, dtype=torch.int8)
        start = 0
        for quantized in rows:
            signed = quantized.codes.to(torch.int16).sub_(self.format.middle)
            codes[start : start + len(signed)] = signed
            start += len(signed)
        for first, last in column_ranges(*self.shape):
            yield CODES, codes[:, first:last].t()

    def _pack_scales(self, scales: Tensor) -> Tensor:
        return scales.flatten()

    def _pack_zero_points(self, packed: Tensor) -> Iterator[tuple[str, Tensor]]:
        raise AssertionError("channels are symmetric: they have no zero points")
