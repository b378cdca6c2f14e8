"""The codes and small floats of MLX's weights, in the words that they are stored in."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ...errors import CheckpointError
from ..storage.store import TensorStore
from ..weight_source import TensorInfo
from .scaled.tables import BlockTable, Decode, Table
from .stored import AGAIN

WORD = 32


@dataclass(frozen=True)
class MLXCodes:
    """The codes of a weight [N, K] in uint32 [N, K * size / 32].

    Args:
        size: the bits of a stored code.
        table: what each stored code stands for, where it is not itself; uint8.
    """

    store: TensorStore
    name: str
    size: int
    table: Tensor | None = None

    @property
    def bits(self) -> int:
        """The bits of a code."""
        return self.size if self.table is None else int(self.table.max()).bit_length()

    def read(self, rows: range, columns: range) -> Tensor:
        """Read a part of them, uint8 [n, k]."""
        first, last = columns.start // WORD, -(-columns.stop // WORD)  # 32 codes begin and end with words
        words = self.store.read(self.name, rows, range(first * self.size, last * self.size))
        codes = unpack(words, self.size)[:, columns.start - WORD * first :][:, : len(columns)]
        return codes if self.table is None else self.table[codes.int()]


@dataclass(frozen=True)
class Multiples:
    """The zero point of each group: the whole number of scales that is nearest to its bias, if it is a code.

    MLX rounds the bias of a group to such a multiple before it rounds both to 16 bits. With zero points the offsets
    that are left are small, and sums of products do not cancel.
    """

    scales: BlockTable
    biases: BlockTable
    top: int

    def rows(self, rows: range) -> Tensor:
        """Read the zero points of some rows, uint8 [n, groups]."""
        scales, biases = self.scales.rows(rows), self.biases.rows(rows)
        multiples = torch.where(scales == 0, 0.0, -biases / scales).nan_to_num()
        return multiples.round().clamp(0, self.top).to(torch.uint8)


@dataclass(frozen=True)
class Rest:
    """What is left of each bias beside the zero point."""

    multiples: Multiples

    def rows(self, rows: range) -> Tensor:
        """Read the offsets of some rows, float32 [n, groups]."""
        points = self.multiples.rows(rows)
        return self.multiples.biases.rows(rows) + points * self.multiples.scales.rows(rows)


def unpack(words: Tensor, bits: int) -> Tensor:
    """Return the codes of rows of uint32 [n, words], uint8 [n, words * 32 / bits].

    Eight codes take as many bytes as a code has bits, and a row is one sequence of such bytes.
    """
    height, width = words.shape
    packed = words.view(torch.uint8).view(height, 4 * width // bits, bits)
    eights = torch.zeros(packed.shape[:2], dtype=torch.int64)
    for index in range(bits):
        eights |= packed[:, :, index].long() << (8 * index)
    codes = torch.empty(*eights.shape, 8, dtype=torch.uint8)
    for index in range(8):
        codes[:, :, index] = (eights >> (bits * index)) & ((1 << bits) - 1)
    return codes.flatten(1)


def e4m3(stored: Tensor) -> Tensor:
    """Return the numbers of bytes that are floats of 4 exponent and 3 mantissa bits."""
    return stored.view(torch.float8_e4m3fn).float()


def halved(decode: Decode) -> Decode:
    """Return half of each scale: that of codes which are doubled floats."""
    return lambda stored: decode(stored) / 2


@dataclass(frozen=True)
class MLXFloat8Weight:
    """A weight [N, K] of floats of 8 bits (E4M3) times a scale for each group; four floats in a word."""

    info: TensorInfo
    format: str
    stored_bytes: int
    store: TensorStore
    name: str
    group_size: int
    scales: Table

    @property
    def grid(self) -> None:
        """None: floats are not on a grid of whole numbers."""
        return None

    def values(self, rows: range, columns: range) -> Tensor:
        """Read a part of it, float32 [n, k].

        Raises:
            CheckpointError: some numbers are NaN.
        """
        numbers = e4m3(MLXCodes(self.store, self.name, 8).read(rows, columns))
        if not bool(numbers.isfinite().all()):
            raise CheckpointError(f"{self.info.file}: tensor {self.name} has weights that are NaN; {AGAIN}")
        return numbers * self.scales.rows(rows)[:, torch.arange(columns.start, columns.stop) // self.group_size]
