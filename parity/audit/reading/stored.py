"""The initializers of an artifact, as the matrices that its operators read.

Written from the specifications of the file format and of the operators alone (onnx.proto3, onnx/docs/Operators.md,
onnxruntime/docs/ContribOperators.md), and not from the exporter: a mistake that both made alike would pass.

A weight is a matrix [N, K] here, N outputs of K inputs each (a vector has one row), whatever its layout in the file.
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

from ....errors import ArtifactError

DTYPES: dict[ir.DataType, Any] = {
    ir.DataType.FLOAT: np.dtype("<f4"),
    ir.DataType.FLOAT16: np.dtype("<f2"),
    ir.DataType.BFLOAT16: np.dtype("<u2"),
    ir.DataType.UINT8: np.dtype("u1"),
    ir.DataType.INT8: np.dtype("i1"),
    ir.DataType.UINT4: np.dtype("u1"),
    ir.DataType.INT4: np.dtype("u1"),
}
"""The NumPy dtype of each type's bytes; two 4-bit elements share a byte, the first in its low half."""

SIGNED = (ir.DataType.INT4, ir.DataType.INT8)
FOUR_BITS = (ir.DataType.UINT4, ir.DataType.INT4)
ROUNDED = {ir.DataType.FLOAT16: torch.float16, ir.DataType.BFLOAT16: torch.bfloat16}


@dataclass(frozen=True)
class StoredArray:
    """An initializer: its bytes are in ``file`` from ``offset`` on, or ``inline`` in the graph.

    Two arrays of the same type over the same bytes are equal.
    """

    name: str = field(compare=False)
    type: ir.DataType
    shape: tuple[int, ...] = field(compare=False)
    file: Path | None = None
    offset: int = 0
    inline: ir.TensorProtocol | None = None

    @staticmethod
    def of(value: ir.Value, folder: Path) -> "StoredArray | None":
        """Return the array of an initializer; None for other values and for types that weights do not have.

        Raises:
            ArtifactError: the initializer extends beyond the end of its file.
        """
        tensor = value.const_value
        if not value.is_initializer() or tensor is None or value.name is None or tensor.dtype not in DTYPES:
            return None
        shape = tuple(int(length) for length in tensor.shape)  # type: ignore[arg-type] # symbolic in other values only
        if not isinstance(tensor, ir.ExternalTensor):
            return StoredArray(value.name, tensor.dtype, shape, inline=tensor)
        found = StoredArray(value.name, tensor.dtype, shape, folder / tensor.location, tensor.offset or 0)
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
        if self.type in FOUR_BITS:
            return -(-self.elements // 2)
        return self.elements * int(DTYPES[self.type].itemsize)

    @cached_property
    def _inline_bytes(self) -> NDArray[np.uint8]:
        assert self.inline is not None
        return np.frombuffer(self.inline.tobytes(), np.uint8)

    def read_bytes(self, start: int, stop: int) -> NDArray[np.uint8]:
        """Return a copy of some of its bytes."""
        if self.file is None:
            return self._inline_bytes[start:stop].copy()
        return np.fromfile(self.file, np.uint8, stop - start, offset=self.offset + start)

    def read(self, start: int, stop: int, as_type: ir.DataType | None = None) -> Tensor:
        """Return elements of the flattened array in float32.

        Args:
            as_type: the type to read the bytes as, where it is not the array's own.
        """
        dtype = as_type or self.type
        if dtype in FOUR_BITS:
            packed = torch.from_numpy(self.read_bytes(start // 2, -(-stop // 2)))
            both = torch.stack((packed & 15, packed >> 4), -1).flatten()
            values = both[start % 2 : start % 2 + stop - start].float()
            return torch.where(values > 7, values - 16, values) if dtype == ir.DataType.INT4 else values
        element = DTYPES[dtype]
        values = torch.from_numpy(self.read_bytes(start * element.itemsize, stop * element.itemsize).view(element))
        if dtype == ir.DataType.BFLOAT16:
            return values.view(torch.bfloat16).float()
        return values.float()


@dataclass(frozen=True)
class JoinedArray(StoredArray):
    """Codes of 5 bits [N, KB, size] from 0 to 31: ``high`` has their upper four bits, and ``low`` the lowest one.

    ``contract.JOIN_BITS`` says where. The elements are those of the function's output over 8.
    """

    high: StoredArray | None = None
    low: StoredArray | None = None

    def read(self, start: int, stop: int, as_type: ir.DataType | None = None) -> Tensor:
        assert self.high is not None
        assert self.low is not None
        upper = self.high.read(start, stop, ir.DataType.UINT4)
        element = torch.arange(start, stop)
        first = start // 32 * 4
        stored = torch.from_numpy(self.low.read_bytes(first, -(-stop // 32) * 4)).to(torch.int64)
        lowest = stored[element // 32 * 4 + element % 4 - first] >> element % 32 // 4 & 1
        return 2 * upper + lowest.float()


@dataclass(frozen=True)
class MatrixView:
    """A stored array as a matrix [rows, columns].

    Args:
        stride: elements from one row of the array to the next.
        transposed: the rows of the array are the columns of the matrix.
        as_type: the type to read the bytes as, where it is not the array's own.
    """

    array: StoredArray
    rows: int
    columns: int
    stride: int
    transposed: bool = False
    as_type: ir.DataType | None = None

    def read(self, rows: range, columns: range) -> Tensor:
        """Return part of the matrix, float32 [rows, columns]."""
        down, across = (columns, rows) if self.transposed else (rows, columns)
        whole_rows = len(across) == (self.rows if self.transposed else self.columns)
        if whole_rows:
            stop = (down.stop - 1) * self.stride + across.stop
            flat = self.array.read(down.start * self.stride, stop, self.as_type)
            part = flat.as_strided((len(down), len(across)), (self.stride, 1), across.start)
        else:
            spans = ((i * self.stride + across.start, i * self.stride + across.stop) for i in down)
            part = torch.stack([self.array.read(start, stop, self.as_type) for start, stop in spans])
        return part.t() if self.transposed else part


@dataclass(frozen=True)
class MultipliedView(MatrixView):
    """A matrix of which every number is multiplied by ``factor``."""

    factor: float = 1.0

    def read(self, rows: range, columns: range) -> Tensor:
        return super().read(rows, columns) * self.factor


@dataclass(frozen=True)
class AlternatingView(MatrixView):
    """Pairs of matrices of ``run`` rows each, one pair after the other; in the array their rows alternate."""

    run: int = 0

    def read(self, rows: range, columns: range) -> Tensor:
        """Return part of the matrix that has the first of a pair, then the second: float32 [rows, columns]."""
        parts, start = [], rows.start
        while start < rows.stop:
            matrix, row = divmod(start, self.run)
            stop = min(rows.stop, (matrix + 1) * self.run)
            pair, second = divmod(matrix, 2)
            first = 2 * (pair * self.run + row) + second
            last = first + 2 * (stop - start - 1)
            flat = self.array.read(first * self.stride, last * self.stride + columns.stop, self.as_type)
            parts.append(flat.as_strided((stop - start, len(columns)), (2 * self.stride, 1), columns.start))
            start = stop
        return torch.cat(parts)


@dataclass(frozen=True)
class WeightPart:
    """Part of a weight: ``values`` float32 [n, k], as the graph computes with them."""

    values: Tensor


@dataclass(frozen=True)
class BlockPart(WeightPart):
    """Part of a block-quantized weight: values are ``codes`` times ``scales``, plus ``offsets`` if there are any.

    Args:
        codes: [n, k], with the zero points subtracted.
        scales: [n, KB], one for each block.
        low: [n, k], the least value that a code can have after the subtraction.
        offsets: [n, KB]; None where the graph has none.
    """

    codes: Tensor
    scales: Tensor
    low: Tensor
    bits: int
    offsets: Tensor | None = None

    @property
    def high(self) -> Tensor:
        """[n, k], the greatest value that a code can have after the subtraction."""
        return self.low + float(2**self.bits - 1)


@dataclass(frozen=True)
class FloatWeight:
    """A weight whose numbers are stored."""

    matrix: MatrixView

    bits = None
    block_size = None
    column_step = 1
    order = None

    @property
    def shape(self) -> tuple[int, int]:
        return self.matrix.rows, self.matrix.columns

    @property
    def by_columns(self) -> bool:
        return self.matrix.transposed

    @property
    def dtype(self) -> torch.dtype:
        """The type that its numbers are rounded to."""
        return ROUNDED.get(self.matrix.array.type, torch.float32)

    def read(self, rows: range, columns: range) -> WeightPart:
        return WeightPart(self.matrix.read(rows, columns))


@dataclass(frozen=True)
class BlockWeight:
    """A weight in blocks of ``block_size`` columns: (code - zero point) * scale + offset.

    Args:
        codes: [N, K or more].
        scales: [N, KB].
        zero_points: [N, KB]; None where all are ``zero_point``.
        offsets: [N, KB]; None where the graph adds none.
        order: [K], the input that each column is multiplied by; None where they are in the order of the inputs.
    """

    codes: MatrixView
    scales: MatrixView
    zero_points: MatrixView | None
    zero_point: float
    bits: int
    block_size: int
    columns: int
    offsets: MatrixView | None = None
    order: tuple[int, ...] | None = None

    @property
    def shape(self) -> tuple[int, int]:
        return self.codes.rows, self.columns

    @property
    def by_columns(self) -> bool:
        """True where whole columns are faster to read than whole rows."""
        return self.codes.transposed

    @property
    def column_step(self) -> int:
        """A range of columns to read has a multiple of this many; 1 where a block is a whole row."""
        return self.block_size if self.block_size < self.columns else 1

    def read(self, rows: range, columns: range) -> BlockPart:
        """Return part of the weight: ``columns`` are whole blocks up to the end of the matrix, or part of one block."""
        size = self.block_size
        blocks = range(columns.start // size, -(-columns.stop // size))
        codes, scales = self.codes.read(rows, columns), self.scales.read(rows, blocks)
        zero_points = torch.tensor(self.zero_point).expand_as(codes)
        if self.zero_points is not None:
            zero_points = expand_blocks(self.zero_points.read(rows, blocks), size, len(columns))
        codes = codes - zero_points
        signed = (self.codes.as_type or self.codes.array.type) in SIGNED
        low = -zero_points - 2.0 ** (self.bits - 1) if signed else -zero_points
        values = codes * expand_blocks(scales, size, len(columns))
        if self.offsets is None:
            return BlockPart(values, codes, scales, low, self.bits)
        offsets = self.offsets.read(rows, blocks)
        return BlockPart(values + expand_blocks(offsets, size, len(columns)), codes, scales, low, self.bits, offsets)


def expand_blocks(blocks: Tensor, size: int, columns: int) -> Tensor:
    """Return one value for each block [n, KB] as one for each column [n, columns]."""
    if blocks.shape[1] == 1:
        return blocks.expand(-1, columns)
    return blocks.repeat_interleave(size, 1)[:, :columns]
