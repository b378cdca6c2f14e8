"""Quantized weights in the layouts of DequantizeLinear: whole rows or whole columns, without blocks and padding.

Symmetric codes are signed, with their zero at 0; the others are unsigned, with zero points. Four-bit codes lie two to a
byte over the flattened array, the first in the low half (onnx/docs/docsgen/source/technical/int4.md). All of it is
made from the pieces of the recipes for MatMulNBits.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from ....models.checkpoint import Checkpoint
from .blocks import pack, unpack
from .recipes import Codes, Quantized, Scales, ZeroPoints

PIECE_ROWS = 1 << 9
"""Rows that are packed at once; even, so that a piece ends with a byte."""


@dataclass(frozen=True)
class RowCodes(Codes):
    """[N, K] by rows, each of which begins with a byte: int8 or uint8 [N, K], or bytes [N, ceil(K / 2)].

    With K even the bytes are those of a four-bit [N, K] too.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        rows, columns = self.weight.shape
        return rows, -(-columns * self.weight.format.bits // 8)

    def pieces(self, checkpoint: Checkpoint) -> Iterator[Tensor]:
        for codes in _codes(self.weight, checkpoint):
            if self.weight.format.bits == 4 and codes.shape[1] % 2:
                codes = pad(codes, (0, 1))
            yield _typed(pack(codes, self.weight.format.bits), self.weight)


@dataclass(frozen=True)
class FlatCodes(Codes):
    """[N, K] in four bits, by rows without gaps: bytes [ceil(N * K / 2)]."""

    @property
    def shape(self) -> tuple[int, ...]:
        rows, columns = self.weight.shape
        return (-(-rows * columns // 2),)

    def pieces(self, checkpoint: Checkpoint) -> Iterator[Tensor]:
        rest = torch.empty(0, dtype=torch.uint8)
        for codes in _codes(self.weight, checkpoint):
            flat = torch.cat([rest, codes.flatten()])
            whole = flat.numel() // 2 * 2
            rest = flat[whole:]
            yield pack(flat[None, :whole], 4)[0]
        if rest.numel():
            yield rest


@dataclass(frozen=True)
class ColumnCodes(Codes):
    """[K, N], as MatMul multiplies by it: int8 or uint8 [K, N], or bytes [ceil(K * N / 2)].

    The codes of the whole weight are in memory, a byte each.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        rows, columns = self.weight.shape
        return (columns, rows) if self.weight.format.bits == 8 else (-(-rows * columns // 2),)

    def pieces(self, checkpoint: Checkpoint) -> Iterator[Tensor]:
        rows, columns = self.weight.shape
        matrix = torch.empty(columns, rows, dtype=torch.uint8)
        start = 0
        for codes in _codes(self.weight, checkpoint):
            matrix[:, start : start + len(codes)] = codes.t()
            start += len(codes)
        for first in range(0, columns, PIECE_ROWS):
            piece = matrix[first : first + PIECE_ROWS]
            yield _typed(piece, self.weight) if self.weight.format.bits == 8 else _packed(piece)


@dataclass(frozen=True)
class ColumnScales(Scales):
    """[KB, N]."""

    @property
    def shape(self) -> tuple[int, ...]:
        return super().shape[::-1]

    def pieces(self, checkpoint: Checkpoint) -> Iterator[Tensor]:
        yield torch.cat(list(super().pieces(checkpoint))).t()


@dataclass(frozen=True)
class RowZeroPoints(ZeroPoints):
    """uint8 [N, KB]."""

    @property
    def shape(self) -> tuple[int, ...]:
        return self.weight.shape[0], self.weight.blocks

    def pieces(self, checkpoint: Checkpoint) -> Iterator[Tensor]:
        for points in super().pieces(checkpoint):
            yield unpack(points, self.weight.format.bits)[:, : self.weight.blocks]


@dataclass(frozen=True)
class ColumnZeroPoints(RowZeroPoints):
    """uint8 [KB, N], or four-bit ones as bytes [ceil(KB * N / 2)]."""

    @property
    def shape(self) -> tuple[int, ...]:
        rows, blocks = super().shape
        return (blocks, rows) if self.weight.format.bits == 8 else (-(-rows * blocks // 2),)

    def pieces(self, checkpoint: Checkpoint) -> Iterator[Tensor]:
        points = torch.cat(list(super().pieces(checkpoint))).t()
        yield points if self.weight.format.bits == 8 else _packed(points)


def _codes(weight: Quantized, checkpoint: Checkpoint) -> Iterator[Tensor]:
    """uint8 [n, K], a code each; of symmetric ones the bits of a signed number."""
    for packed in weight.stream(checkpoint):
        codes = unpack(packed.flatten(1), weight.format.bits)[:, : weight.shape[1]]
        # Less the middle, modulo the number of codes: the highest bit turned over.
        yield codes ^ weight.format.middle if weight.format.symmetric else codes


def _packed(codes: Tensor) -> Tensor:
    """Four-bit codes as the bytes of their flattened array."""
    flat = codes.reshape(1, -1)
    return pack(pad(flat, (0, flat.numel() % 2)), 4)[0]


def _typed(codes: Tensor, weight: Quantized) -> Tensor:
    signed = weight.format.symmetric and weight.format.bits == 8
    return codes.contiguous().view(torch.int8) if signed else codes
