"""The layouts of DequantizeLinear: whole rows or whole columns, without blocks and padding.

Symmetric codes are signed, with their zero at 0; the others are unsigned, with zero points. Four-bit codes are packed
two to a byte over the flattened array, the first in the low half (onnx/docs/docsgen/source/technical/int4.md).
"""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import pad

from ...weights import Stream
from .blocks import BlockFormat, QuantizedRows, pack, unpack
from .weight import CODES, ZERO_POINTS, QuantizedWeight

PIECE_ROWS = 1 << 9
"""Rows that are packed at once; even, so that each chunk ends on a byte boundary."""

ZERO_POINT_COLUMNS = f"{ZERO_POINTS}.columns"


class ColumnWeight(QuantizedWeight):
    """A weight in the layout of MatMul's right operand.

    Codes int8 or uint8 [K, N], or bytes [ceil(K * N / 2)]; scales [KB, N]; zero points uint8 [KB, N], or bytes
    [ceil(KB * N / 2)]. The codes of the whole weight are in memory, a byte each.
    """

    def _codes_shape(self) -> tuple[int, ...]:
        return _flat_shape((self.shape[1], self.shape[0]), self.format.bits)

    def _scales_shape(self) -> tuple[int, ...]:
        return (self.blocks, self.shape[0])

    def _zero_points_shape(self) -> tuple[int, ...]:
        return _flat_shape((self.blocks, self.shape[0]), self.format.bits)

    def _pack_codes(self, rows: Iterator[QuantizedRows]) -> Iterator[tuple[str, Tensor]]:
        matrix = torch.empty(self.shape[::-1], dtype=torch.uint8)
        start = 0
        for quantized in rows:
            codes = _signed(quantized)
            matrix[:, start : start + len(codes)] = codes.t()
            start += len(codes)
        for piece in torch.split(matrix, PIECE_ROWS):
            yield CODES, _typed(piece, self.format) if self.format.bits == 8 else _pack_flat(piece)

    def _pack_scales(self, scales: Tensor) -> Tensor:
        return scales.t()

    def _pack_zero_points(self, packed: Tensor) -> Iterator[tuple[str, Tensor]]:
        yield ZERO_POINTS, _columns(packed, self)


class RowWeight(QuantizedWeight):
    """A weight [V, K] whose rows are looked up.

    Each row of codes begins with a byte: int8 or uint8 [V, K], or bytes [V, ceil(K / 2)], which with K even are those
    of a four-bit [V, K] too. Scales are [V, KB], zero points uint8 [V, KB]; ``zero_point_columns`` has them as
    ``ColumnWeight`` does, for an LM head.
    """

    @property
    def zero_point_columns(self) -> Stream:
        return Stream(self, ZERO_POINT_COLUMNS, _flat_shape((self.blocks, self.shape[0]), self.format.bits))

    def _codes_shape(self) -> tuple[int, ...]:
        return (self.shape[0], self.format.packed_bytes(self.shape[1]))

    def _zero_points_shape(self) -> tuple[int, ...]:
        return (self.shape[0], self.blocks)

    def _pack_codes(self, rows: Iterator[QuantizedRows]) -> Iterator[tuple[str, Tensor]]:
        for quantized in rows:
            codes = _signed(quantized)
            if self.format.bits == 4 and codes.shape[1] % 2:
                codes = pad(codes, (0, 1))
            yield CODES, _typed(pack(codes, self.format.bits), self.format)

    def _pack_zero_points(self, packed: Tensor) -> Iterator[tuple[str, Tensor]]:
        yield ZERO_POINTS, unpack(packed, self.format.bits)[:, : self.blocks]
        yield ZERO_POINT_COLUMNS, _columns(packed, self)


class FlatWeight(RowWeight):
    """A weight [V, K] in four bits that is multiplied by: rows without gaps, bytes [ceil(V * K / 2)]."""

    def _codes_shape(self) -> tuple[int, ...]:
        return _flat_shape(self.shape, bits=4)

    def _pack_codes(self, rows: Iterator[QuantizedRows]) -> Iterator[tuple[str, Tensor]]:
        rest = torch.empty(0, dtype=torch.uint8)
        for quantized in rows:
            flat = torch.cat([rest, _signed(quantized).flatten()])
            whole = flat.numel() // 2 * 2
            rest = flat[whole:]
            yield CODES, pack(flat[None, :whole], 4)[0]
        if rest.numel():
            yield CODES, rest


def _signed(rows: QuantizedRows) -> Tensor:
    """Return the codes, uint8 [n, K]; symmetric ones as the bits of signed numbers."""
    # Less the middle, modulo the number of codes: the highest bit is flipped.
    return rows.codes ^ rows.format.middle if rows.format.symmetric else rows.codes


def _columns(packed: Tensor, weight: QuantizedWeight) -> Tensor:
    """Transpose packed zero points, uint8 [N, ceil(KB * bits / 8)], to uint8 [KB, N] or bytes [ceil(KB * N / 2)]."""
    points = unpack(packed, weight.format.bits)[:, : weight.blocks].t()
    return points if weight.format.bits == 8 else _pack_flat(points)


def _flat_shape(shape: tuple[int, int], bits: int) -> tuple[int, ...]:
    return shape if bits == 8 else (-(-shape[0] * shape[1] // 2),)


def _pack_flat(codes: Tensor) -> Tensor:
    """Pack four-bit codes as the bytes of their flattened array."""
    flat = codes.reshape(1, -1)
    return pack(pad(flat, (0, flat.numel() % 2)), 4)[0]


def _typed(codes: Tensor, format: BlockFormat) -> Tensor:
    signed = format.symmetric and format.bits == 8
    return codes.contiguous().view(torch.int8) if signed else codes
