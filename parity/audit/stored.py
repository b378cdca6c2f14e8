"""The bytes of an artifact's initializers as the matrices that its operators read.

Written from the specifications of the file format and of the operators alone (onnx.proto3, onnx/docs/Operators.md,
onnxruntime/docs/ContribOperators.md), and not from what wrote the file: what both got wrong in the same way would pass.

A weight is a matrix [N, K] here, N outputs of K inputs each (a vector is one row), whatever lies in the file.
"""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...errors import ArtifactError

BYTES: dict[ir.DataType, Any] = {
    ir.DataType.FLOAT: np.dtype("<f4"),
    ir.DataType.FLOAT16: np.dtype("<f2"),
    ir.DataType.BFLOAT16: np.dtype("<u2"),
    ir.DataType.UINT8: np.dtype("u1"),
    ir.DataType.INT8: np.dtype("i1"),
    ir.DataType.UINT4: np.dtype("u1"),
    ir.DataType.INT4: np.dtype("u1"),
}
"""What the elements of a type are read as; four-bit ones lie two to a byte, the first in the low half."""

SIGNED = (ir.DataType.INT4, ir.DataType.INT8)
HALF_BYTES = (ir.DataType.UINT4, ir.DataType.INT4)
ROUNDED = {ir.DataType.FLOAT16: torch.float16, ir.DataType.BFLOAT16: torch.bfloat16}


@dataclass(frozen=True)
class Array:
    """An initializer: ``type`` and ``shape``, and where its bytes are (in ``file`` from ``offset`` on, or in the graph
    itself: ``held``). Two that are the same bytes are equal."""

    name: str = field(compare=False)
    type: ir.DataType
    shape: tuple[int, ...] = field(compare=False)
    file: Path | None = None
    offset: int = 0
    held: ir.TensorProtocol | None = None

    @staticmethod
    def of(value: ir.Value, folder: Path) -> "Array | None":
        """None where the value is no initializer with values, or of a type that no weight has.

        Raises:
            ArtifactError: it reaches beyond its file.
        """
        tensor = value.const_value
        if not value.is_initializer() or tensor is None or value.name is None or tensor.dtype not in BYTES:
            return None
        shape = tuple(int(length) for length in tensor.shape)  # type: ignore[arg-type]
        if not isinstance(tensor, ir.ExternalTensor):
            return Array(value.name, tensor.dtype, shape, held=tensor)
        found = Array(value.name, tensor.dtype, shape, folder / tensor.location, tensor.offset or 0)
        assert found.file is not None
        size = found.file.stat().st_size if found.file.is_file() else -1
        if size < found.offset + found.bytes:
            raise ArtifactError(
                f"{found.file}: initializer {value.name} ends at byte {found.offset + found.bytes:,}, and the file has "
                f"{max(size, 0):,}; export the model again"
            )
        return found

    @property
    def elements(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def bytes(self) -> int:
        if self.type in HALF_BYTES:
            return -(-self.elements // 2)
        return self.elements * int(BYTES[self.type].itemsize)

    @cached_property
    def _held(self) -> NDArray[np.uint8]:
        assert self.held is not None
        return np.frombuffer(self.held.tobytes(), np.uint8)

    def raw(self, start: int, stop: int) -> NDArray[np.uint8]:
        """Some of its bytes, in memory of their own."""
        if self.file is None:
            return self._held[start:stop].copy()
        return np.fromfile(self.file, np.uint8, stop - start, offset=self.offset + start)

    def flat(self, start: int, stop: int, as_type: ir.DataType | None = None) -> Tensor:
        """Elements of the flattened array, widened to float32; ``as_type`` reads the bytes as of another type."""
        kind = as_type or self.type
        if kind in HALF_BYTES:
            packed = torch.from_numpy(self.raw(start // 2, -(-stop // 2)))
            both = torch.stack((packed & 15, packed >> 4), -1).flatten()
            values = both[start % 2 : start % 2 + stop - start].float()
            return torch.where(values > 7, values - 16, values) if kind == ir.DataType.INT4 else values
        plain = BYTES[kind]
        values = torch.from_numpy(self.raw(start * plain.itemsize, stop * plain.itemsize).view(plain))
        if kind == ir.DataType.BFLOAT16:
            return values.view(torch.bfloat16).float()
        return values.float()


@dataclass(frozen=True)
class Matrix:
    """[rows, columns] of an array, whose own rows are ``pitch`` elements apart; ``transposed``, its own rows are
    columns of the matrix. ``as_type`` reads its bytes as of another type."""

    array: Array
    rows: int
    columns: int
    pitch: int
    transposed: bool = False
    as_type: ir.DataType | None = None

    def read(self, rows: range, columns: range) -> Tensor:
        """Part of the matrix, float32 [rows, columns]."""
        down, across = (columns, rows) if self.transposed else (rows, columns)
        whole = len(across) == (self.rows if self.transposed else self.columns)
        if whole:
            stop = (down.stop - 1) * self.pitch + across.stop
            flat = self.array.flat(down.start * self.pitch, stop, self.as_type)
            part = flat.as_strided((len(down), len(across)), (self.pitch, 1), across.start)
        else:
            places = ((i * self.pitch + across.start, i * self.pitch + across.stop) for i in down)
            part = torch.stack([self.array.flat(start, stop, self.as_type) for start, stop in places])
        return part.t() if self.transposed else part


@dataclass(frozen=True)
class Piece:
    """Part of a weight as the graph computes with it: ``values`` float32 [n, k]."""

    values: Tensor


@dataclass(frozen=True)
class BlockPiece(Piece):
    """Part of a weight in blocks: values are ``codes`` [n, k], less their zero points, times ``scales`` [n, KB].
    ``low`` [n, k] and ``high`` are the least and the most that a code less its zero point can be."""

    codes: Tensor
    scales: Tensor
    low: Tensor
    bits: int

    @property
    def high(self) -> Tensor:
        return self.low + float(2**self.bits - 1)


@dataclass(frozen=True)
class FloatWeight:
    """A weight that is stored as it is."""

    matrix: Matrix

    bits = None
    block_size = None
    multiple = 1

    @property
    def shape(self) -> tuple[int, int]:
        return self.matrix.rows, self.matrix.columns

    @property
    def by_columns(self) -> bool:
        return self.matrix.transposed

    @property
    def dtype(self) -> torch.dtype:
        """What its numbers were rounded to."""
        return ROUNDED.get(self.matrix.array.type, torch.float32)

    def read(self, rows: range, columns: range) -> Piece:
        return Piece(self.matrix.read(rows, columns))


@dataclass(frozen=True)
class BlockWeight:
    """A weight in blocks of ``block_size`` columns: (code - zero point) * scale.

    ``codes`` has K or more columns, ``scales`` and ``zeros`` one for each block; without ``zeros`` they are ``zero``.
    """

    codes: Matrix
    scales: Matrix
    zeros: Matrix | None
    zero: float
    bits: int
    block_size: int
    columns: int

    @property
    def shape(self) -> tuple[int, int]:
        return self.codes.rows, self.columns

    @property
    def by_columns(self) -> bool:
        """Whether whole columns are read at less cost than whole rows."""
        return self.codes.transposed

    @property
    def multiple(self) -> int:
        """Of so many columns a range must be; 1 where a block is a whole row."""
        return self.block_size if self.block_size < self.columns else 1

    def read(self, rows: range, columns: range) -> BlockPiece:
        """``columns`` begin with a block, and end with one or with the matrix; or are within one."""
        size = self.block_size
        blocks = range(columns.start // size, -(-columns.stop // size))
        codes, scales = self.codes.read(rows, columns), self.scales.read(rows, blocks)
        zeros = torch.tensor(self.zero).expand_as(codes)
        if self.zeros is not None:
            zeros = spread(self.zeros.read(rows, blocks), size, len(columns))
        codes = codes - zeros
        signed = (self.codes.as_type or self.codes.array.type) in SIGNED
        low = -zeros - 2.0 ** (self.bits - 1) if signed else -zeros
        return BlockPiece(codes * spread(scales, size, len(columns)), codes, scales, low, self.bits)


def spread(blocks: Tensor, size: int, columns: int) -> Tensor:
    """Values [n, KB] for blocks as values [n, columns]."""
    if blocks.shape[1] == 1:
        return blocks.expand(-1, columns)
    return blocks.repeat_interleave(size, 1)[:, :columns]
