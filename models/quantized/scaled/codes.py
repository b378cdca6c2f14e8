"""The codes of a weight as they are stored: packed into int32 or nibbles, or one to a byte."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ....errors import CheckpointError
from ...storage.store import TensorStore
from .stored import REMEDY

WORD = 32


class Codes(Protocol):
    """The codes of a weight [N, K], whole numbers from 0 to ``2**bits - 1``."""

    @property
    def bits(self) -> int:
        """The bits of a code."""
        ...

    def read(self, rows: range, columns: range) -> Tensor:
        """Read a part of them, uint8 [n, k]."""
        ...


@dataclass(frozen=True)
class Packing:
    """How codes are packed into words of 32 bits, the first code in the lowest bits.

    Args:
        dense: code i begins at bit ``i * bits``, across words where it must; otherwise each word has the same number of
            whole codes, and its highest bits may be unused.
    """

    bits: int
    dense: bool

    @property
    def unit(self) -> tuple[int, int]:
        """The smallest run that begins at a word: (codes, words)."""
        return (WORD, self.bits) if self.dense else (WORD // self.bits, 1)

    def count(self, codes: int) -> int:
        """Return the number of words that codes take."""
        return -(-codes * self.bits // WORD) if self.dense else -(-codes // (WORD // self.bits))

    def words(self, codes: range) -> tuple[range, int]:
        """Return the words that hold a range of codes, and the number of codes before the range in them."""
        length, words = self.unit
        first, last = codes.start // length, -(-codes.stop // length)
        return range(first * words, last * words), codes.start - first * length


def unpack(words: Tensor, packing: Packing) -> Tensor:
    """Return the codes in words, int32 [n, W] to uint8 [n, at least W * 32 // bits], zeros after the last word."""
    bits = packing.bits
    mask = 2**bits - 1
    if not packing.dense or WORD % bits == 0:
        shifts = torch.arange(WORD // bits, dtype=torch.int32) * bits
        found: Tensor = (words.unsqueeze(-1) >> shifts) & mask
        return found.to(torch.uint8).flatten(1)
    whole = torch.nn.functional.pad(words, (0, -words.shape[1] % bits)).to(torch.int64) & 0xFFFFFFFF
    units = whole.reshape(len(words), -1, bits)
    codes = torch.empty((*units.shape[:2], WORD), dtype=torch.uint8)
    for code in range(WORD):
        word, shift = divmod(code * bits, WORD)
        value = units[..., word] >> shift
        if shift + bits > WORD:
            value |= units[..., word + 1] << (WORD - shift)
        codes[..., code] = (value & mask).to(torch.uint8)
    return codes.flatten(1)


@dataclass(frozen=True)
class PackedCodes:
    """Codes packed along the columns, int32 [N, words of K codes]."""

    store: TensorStore
    name: str
    packing: Packing

    @property
    def bits(self) -> int:
        """The bits of a code."""
        return self.packing.bits

    def read(self, rows: range, columns: range) -> Tensor:
        """Read a part of them, uint8 [n, k]."""
        words, skipped = self.packing.words(columns)
        held = range(words.start, min(words.stop, self.store.tensors[self.name].shape[1]))
        codes = unpack(self.store.read(self.name, rows, held), self.packing)
        return codes[:, skipped : skipped + len(columns)]


@dataclass(frozen=True)
class ByteCodes:
    """Codes from ``-2**(bits - 1)`` in int8 [N, K], shifted to codes from 0."""

    store: TensorStore
    name: str
    bits: int

    def read(self, rows: range, columns: range) -> Tensor:
        """Read a part of them, uint8 [n, k].

        Raises:
            CheckpointError: some have more bits.
        """
        shifted: Tensor = self.store.read(self.name, rows, columns).to(torch.int16) + 2 ** (self.bits - 1)
        if self.bits < 8 and bool(((shifted < 0) | (shifted >= 2**self.bits)).any()):
            file = self.store.tensors[self.name].file
            raise CheckpointError(f"{file}: tensor {self.name} has numbers of more than {self.bits} bits; {REMEDY}")
        return shifted.to(torch.uint8)


@dataclass(frozen=True)
class NibbleCodes:
    """Two codes to a byte [N, K / 2], the first in the lower half; ``table`` has the code of each half, uint8 [16]."""

    store: TensorStore
    name: str
    bits: int
    table: Tensor

    def read(self, rows: range, columns: range) -> Tensor:
        """Read a part of them, uint8 [n, k]."""
        held = range(columns.start // 2, -(-columns.stop // 2))
        stored = self.store.read(self.name, rows, held).view(torch.uint8)
        halves = torch.stack((stored & 15, stored >> 4), dim=-1).flatten(1)
        skipped = columns.start - 2 * held.start
        codes: Tensor = self.table[halves[:, skipped : skipped + len(columns)].to(torch.int64)]
        return codes


SIGNED_NIBBLES = torch.tensor([(half + 8) % 16 for half in range(16)], dtype=torch.uint8)
"""4-bit integers in two's complement as codes from 0, whose zero point is 8."""

E2M1_ZERO = 12
E2M1_NIBBLES = torch.tensor(
    [E2M1_ZERO + sign * twice for sign in (1, -1) for twice in (0, 1, 2, 3, 4, 6, 8, 12)], dtype=torch.uint8
)
"""FP4's numbers (E2M1 of OCP's microscaling formats: 0, 0.5, 1, 1.5, 2, 3, 4, 6 and their negatives), doubled, as codes
of 5 bits whose zero point is ``E2M1_ZERO``."""
