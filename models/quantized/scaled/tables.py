"""Numbers that the blocks of a weight share, read from the tensors that store them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ....errors import CheckpointError
from ...storage.store import TensorStore
from .codes import Packing, unpack
from .stored import REMEDY

Decode = Callable[[Tensor], Tensor]
"""Returns float32 numbers of the same shape as the stored ones."""


class Table(Protocol):
    """One number for each block of columns of each row of a weight [N, K], KB blocks to a row."""

    def rows(self, rows: range) -> Tensor:
        """Read the numbers of some of the weight's rows, float32 or uint8 [n, KB]."""
        ...


def as_float(stored: Tensor) -> Tensor:
    """Return the stored numbers in float32."""
    return stored.to(torch.float32)


def power_of_two(stored: Tensor) -> Tensor:
    """Return ``2**(stored - 127)``: E8M0, the exponents of OCP's microscaling formats in uint8; 255 is NaN."""
    exponents = stored.to(torch.float32)
    return torch.where(exponents == 255, torch.nan, torch.exp2(exponents - 127))


@dataclass(frozen=True)
class BlockTable:
    """A stored tensor with a float for each block of ``height`` rows of a weight [N, K] and some of its columns.

    Args:
        shape: [ceil(N / height), KB]; the stored tensor has as many items, in this order.
        transposed: the stored tensor is [KB, ceil(N / height)].
    """

    store: TensorStore
    name: str
    shape: tuple[int, int]
    height: int
    decode: Decode = as_float
    transposed: bool = False

    def rows(self, rows: range) -> Tensor:
        """Read the numbers of some of the weight's rows, float32 [n, KB].

        Raises:
            CheckpointError: some are NaN or infinite.
        """
        first, last = rows.start // self.height, (rows.stop - 1) // self.height + 1
        stored = self._stored(first, last)
        numbers = self.decode(stored)
        if not bool(numbers.isfinite().all()):
            file = self.store.tensors[self.name].file
            raise CheckpointError(f"{file}: tensor {self.name} has scales that are NaN or infinite; {REMEDY}")
        if self.height == 1:
            return numbers
        return numbers[torch.arange(rows.start, rows.stop) // self.height - first]

    def _stored(self, first: int, last: int) -> Tensor:
        if self.transposed and len(self.store.tensors[self.name].shape) == 2:
            return self.store.read(self.name, range(self.shape[1]), range(first, last)).T
        if self.store.tensors[self.name].shape == self.shape:
            return self.store.read(self.name, range(first, last))
        return self.store.read(self.name).reshape(self.shape)[first:last]


def block_table(
    store: TensorStore,
    name: str,
    weight: tuple[int, int],
    block: tuple[int, int],
    decode: Decode = as_float,
    *,
    transposed: bool = False,
) -> BlockTable:
    """Return the table of a weight [N, K] in a tensor whose blocks have ``block`` rows and columns.

    The tensor may lack dimensions of length 1: a scale for the whole weight is stored as [], [1] or [1, 1], a scale for
    each row as [N] or [N, 1].

    Raises:
        CheckpointError: the tensor has another shape.
    """
    info = store.tensors[name]
    shape = (-(-weight[0] // block[0]), -(-weight[1] // block[1]))
    allowed: list[tuple[int, ...]] = [shape[::-1] if transposed else shape]
    if shape[1] == 1:
        allowed.append((shape[0],))
    if shape == (1, 1):
        allowed.append(())
    if info.shape not in allowed:
        raise CheckpointError(
            f"{info.file}: tensor {name} has the shape {list(info.shape)}, and a weight {list(weight)} in blocks of "
            f"{block[0]:,} x {block[1]:,} has {list(allowed[0])}; {REMEDY}"
        )
    return BlockTable(store, name, shape, block[0], decode, transposed)


@dataclass(frozen=True)
class IntegerZeroPoints:
    """Zero points that are stored as they are, of codes from ``-2**(bits - 1)``, shifted to codes from 0."""

    table: BlockTable
    bits: int

    def rows(self, rows: range) -> Tensor:
        """Read the zero points of some rows, uint8 [n, KB].

        Raises:
            CheckpointError: some are not codes.
        """
        shifted: Tensor = self.table.rows(rows) + 2 ** (self.bits - 1)
        if bool(((shifted < 0) | (shifted >= 2**self.bits) | (shifted != shifted.floor())).any()):
            file = self.table.store.tensors[self.table.name].file
            raise CheckpointError(
                f"{file}: tensor {self.table.name} has zero points that are not codes of {self.bits} bits; {REMEDY}"
            )
        return shifted.to(torch.uint8)


@dataclass(frozen=True)
class PackedZeroPoints:
    """Zero points packed along the rows: the stored tensor is int32 [words of N codes, KB]."""

    store: TensorStore
    name: str
    packing: Packing

    def rows(self, rows: range) -> Tensor:
        """Read the zero points of some rows, uint8 [n, KB]."""
        words, skipped = self.packing.words(rows)
        stored = self.store.read(self.name, range(words.start, min(words.stop, self.store.tensors[self.name].shape[0])))
        codes = unpack(stored.T.contiguous(), self.packing)[:, skipped : skipped + len(rows)]
        return codes.T
