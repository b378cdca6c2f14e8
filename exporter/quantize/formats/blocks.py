"""Weights in blocks: each run of ``block_size`` columns of a row shares a scale and a zero point.

A weight is ``(code - zero_point) * scale``, in some checkpoints plus an offset of its block. The packed layout is that
of ONNX Runtime's MatMulNBits (onnxruntime/docs/ContribOperators.md): codes uint8 [N, KB, block_size * bits / 8] and
zero points [N, ceil(KB * bits / 8)], two 4-bit values to a byte, the first in the low half. KB is the number of blocks
of a row; the last one is padded with the code of zero.

Codes of 5 bits are stored as the upper bits of codes of 8, so that scales are an eighth and zero points 8 times as
large: the upper four bits in the layout of 4 bits, and the lowest one apart (``contract.JOIN_BITS``).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

BITS = (4, 5, 8)
ONNX_RUNTIME_BITS = (4, 8)
"""Those of them that ONNX Runtime's operators have."""
LOW_STEP = 32
"""Columns whose lowest bits are together, in 5 bits; blocks have them or more."""
BLOCK_SIZES = (16, 32, 64, 128, 256)


@dataclass(frozen=True)
class BlockFormat:
    """The format of a weight [N, K]. A symmetric one has no zero points: its code of zero is ``middle``."""

    bits: int
    block_size: int
    symmetric: bool

    @property
    def top(self) -> int:
        """The largest code."""
        return int(2**self.bits) - 1

    @property
    def middle(self) -> int:
        return int(2 ** (self.bits - 1))

    @property
    def scaling(self) -> int:
        """What a stored code is the multiple of: 8 with 5 bits."""
        return 8 if self.bits == 5 else 1

    def blocks(self, columns: int) -> int:
        return -(-columns // self.block_size)

    def packed_bytes(self, values: int) -> int:
        """Return how many bytes so many codes take."""
        return -(-values * self.bits // 8)

    def zero_point_bytes(self, blocks: int) -> int:
        """Return how many bytes the zero points of so many blocks of a row take."""
        return -(-blocks // 2) if self.bits == 4 else blocks

    def bytes(self, rows: int, columns: int, scale_bytes: int) -> int:
        """Return how many bytes the codes, scales and zero points of a weight take together."""
        blocks = self.blocks(columns)
        zero_points = 0 if self.symmetric else rows * self.zero_point_bytes(blocks)
        return rows * blocks * (self.packed_bytes(self.block_size) + scale_bytes) + zero_points


def channel_format(columns: int) -> BlockFormat:
    """Return the format with one block for a whole row [K]: a scale for each output channel."""
    return BlockFormat(8, columns, True)


@dataclass(frozen=True)
class QuantizedRows:
    """Rows of a weight: ``codes`` uint8 [N, K], ``scales`` float32 [N, KB], ``zero_points`` uint8 [N, KB].

    ``offsets`` are float32 [N, KB], or None.
    """

    format: BlockFormat
    codes: Tensor
    scales: Tensor
    zero_points: Tensor
    offsets: Tensor | None = None

    def dequantize(self) -> Tensor:
        """Return the values that the codes represent, float32 [N, K]."""
        rows, columns = self.codes.shape
        codes = split(self.codes.float(), self.format.block_size)
        values = (codes - self.zero_points[..., None].float()) * self.scales[..., None]
        if self.offsets is not None:
            values += self.offsets[..., None]
        return values.reshape(rows, -1)[:, :columns]

    def packed_codes(self) -> Tensor:
        """Return uint8 [N, KB, block_size * bits / 8]; of 5 bits the upper four, [N, KB, block_size / 2]."""
        codes, bits = self._whole_blocks(), self.format.bits
        packed = pack(codes >> 1, 4) if bits == 5 else pack(codes, bits)
        return packed.view(len(codes), self.format.blocks(self.codes.shape[1]), -1)

    def packed_low_bits(self) -> Tensor:
        """Return the lowest bits of codes of 5 bits, uint8 [N, KB, block_size / 8]."""
        codes, blocks = self._whole_blocks() & 1, self.format.blocks(self.codes.shape[1])
        words = codes.view(len(codes), blocks, -1, 8, LOW_STEP // 8)
        places = torch.arange(8, dtype=torch.uint8)[:, None]
        return (words << places).sum(-2, dtype=torch.uint8).view(len(codes), blocks, -1)

    def _whole_blocks(self) -> Tensor:
        """Return the codes with the last block filled up."""
        rows, columns = self.codes.shape
        if gap := -columns % self.format.block_size:
            return torch.cat([self.codes, self.zero_points[:, -1:].expand(rows, gap)], dim=1)
        return self.codes

    def packed_zero_points(self) -> Tensor:
        """Return uint8 [N, ceil(KB * bits / 8)]; of 5 bits 8 times as large as they are, [N, KB]."""
        points = self.zero_points
        if self.format.bits == 5:
            return points * self.format.scaling
        if self.format.bits == 4 and points.shape[1] % 2:
            points = torch.nn.functional.pad(points, (0, 1))
        return pack(points, self.format.bits)


def split(matrix: Tensor, block_size: int) -> Tensor:
    """Reshape [N, K] to [N, KB, block_size]; where K is not a multiple, the last block is padded with zeros."""
    if gap := -matrix.shape[1] % block_size:
        matrix = torch.nn.functional.pad(matrix, (0, gap))
    return matrix.reshape(matrix.shape[0], -1, block_size)


def pack(codes: Tensor, bits: int) -> Tensor:
    """Pack uint8 [N, M] into bytes [N, M * bits / 8]; the first of two 4-bit codes is the low half."""
    if bits == 8:
        return codes.contiguous()
    return codes[:, ::2] | (codes[:, 1::2] << 4)


def unpack(packed: Tensor, bits: int) -> Tensor:
    """Undo ``pack``."""
    if bits == 8:
        return packed
    return torch.stack((packed & 15, packed >> 4), -1).flatten(1)
