"""The tensors of GGUF files as a store, and those that are quantized as weights with codes."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ...errors import CheckpointError
from ..dtypes import SAFETENSORS_DTYPES
from ..quantized.weights import BlockParameters, QuantizedWeight, QuantizedWeights
from ..weight_source import TensorInfo
from .header import StoredTensor
from .types import Grid

RAW = "U8"
"""The dtype of a quantized tensor in the store: its rows as bytes."""
CHUNK_BYTES = 1 << 24
"""Bytes of blocks that are unpacked at once; their float32 numbers and what is in between take ten times as much."""


class GGUFTensors:
    """The tensors by their names in a checkpoint; those that are quantized are the bytes of their rows."""

    def __init__(self, stored: Mapping[str, StoredTensor]) -> None:
        self.stored = stored
        self.tensors: Mapping[str, TensorInfo] = {name: _info(tensor) for name, tensor in stored.items()}

    def read(self, name: str, rows: range | None = None, columns: range | None = None) -> Tensor:
        info = self.tensors[name]
        data = torch.from_numpy(read_bytes(self.stored[name], name, rows, None))
        dtype = torch.uint8 if info.dtype == RAW else SAFETENSORS_DTYPES[info.dtype]
        tensor = data.view(dtype).reshape(len(data), *info.shape[1:])
        return tensor if columns is None else tensor[:, columns.start : columns.stop].clone()


def quantized_weights(stored: Mapping[str, StoredTensor]) -> QuantizedWeights:
    """Return the weights that are quantized.

    Raises:
        CheckpointError: one is not a matrix.
    """
    weights: dict[str, QuantizedWeight] = {}
    for name, tensor in stored.items():
        if (grid := tensor.type.grid) is None:
            continue
        if len(tensor.shape) != 2:
            raise CheckpointError(
                f"{tensor.file}: tensor {name} is of the type {tensor.type.name} and has the shape {tensor.shape}; "
                "only matrices are read quantized: fetch the file again"
            )
        weights[name] = GGUFWeight(name, tensor, grid)
    return QuantizedWeights(weights, frozenset(weights))


@dataclass(frozen=True)
class GGUFWeight:
    """A quantized matrix [N, K]; it is its own grid."""

    name: str
    stored: StoredTensor
    type: Grid

    @property
    def info(self) -> TensorInfo:
        return TensorInfo(self.stored.file, "F32", self.stored.shape)

    @property
    def format(self) -> str:
        return self.stored.type.name

    @property
    def stored_bytes(self) -> int:
        return self.stored.nbytes

    @property
    def grid(self) -> "GGUFWeight":
        return self

    @property
    def bits(self) -> int:
        return self.type.bits

    @property
    def block_size(self) -> int:
        return self.type.group

    @property
    def order(self) -> None:
        return None

    def parameters(self) -> BlockParameters:
        height, width = self.stored.shape
        scales = np.empty((height, width // self.type.group), np.float32)
        offsets: npt.NDArray[np.float32] | None = None
        for rows in self._chunks(range(height)):
            some, added = self._scales(self._blocks(rows, None))
            scales[rows.start : rows.stop] = some.reshape(len(rows), -1)
            if added is not None:
                offsets = np.empty_like(scales) if offsets is None else offsets
                offsets[rows.start : rows.stop] = added.reshape(len(rows), -1)
        zero_points = torch.full(scales.shape, self.type.zero_point, dtype=torch.uint8)
        return BlockParameters(
            torch.from_numpy(scales), zero_points, None if offsets is None else torch.from_numpy(offsets)
        )

    def codes(self, rows: range) -> Tensor:
        found = np.empty((len(rows), self.stored.shape[1]), np.uint8)
        for some in self._chunks(rows):
            codes = self.type.codes(self._blocks(some, None)).reshape(len(some), -1)
            found[some.start - rows.start : some.stop - rows.start] = codes
        return torch.from_numpy(found)

    def values(self, rows: range, columns: range) -> Tensor:
        elements = self.stored.type.elements
        first, last = columns.start // elements, -(-columns.stop // elements)
        begin = columns.start - first * elements
        found = np.empty((len(rows), len(columns)), np.float32)
        for some in self._chunks(rows):
            numbers = self._numbers(self._blocks(some, range(first, last))).reshape(len(some), -1)
            found[some.start - rows.start : some.stop - rows.start] = numbers[:, begin : begin + len(columns)]
        return torch.from_numpy(found)

    def _numbers(self, blocks: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Return the float32 numbers of blocks [B, bytes] as [B, groups, group], rounded as llama.cpp rounds them."""
        scales, offsets = self._scales(blocks)
        numbers = self.type.codes(blocks).reshape(*scales.shape, -1).astype(np.float32)
        numbers -= np.float32(self.type.zero_point)
        numbers *= scales[..., None]
        if offsets is not None:
            numbers += offsets[..., None]
        return numbers

    def _scales(self, blocks: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32] | None]:
        with np.errstate(all="ignore"):  # damaged scales may be NaN; they are refused
            scales, offsets = self.type.scales(blocks)
        if not np.isfinite(scales).all() or (offsets is not None and not np.isfinite(offsets).all()):
            raise CheckpointError(
                f"{self.stored.file}: tensor {self.name} has scales that are NaN or infinite; fetch the file again"
            )
        return scales, offsets

    def _blocks(self, rows: range, columns: range | None) -> npt.NDArray[np.uint8]:
        return read_bytes(self.stored, self.name, rows, columns).reshape(-1, self.stored.type.nbytes)

    def _chunks(self, rows: range) -> list[range]:
        step = max(1, CHUNK_BYTES // _rows(self.stored)[1])
        return [range(start, min(start + step, rows.stop)) for start in range(rows.start, rows.stop, step)]


def read_bytes(stored: StoredTensor, name: str, rows: range | None, blocks: range | None) -> npt.NDArray[np.uint8]:
    """Read a tensor's bytes [rows, bytes of a row], or a range of its rows and of the blocks in each.

    The file is mapped only while this is read: an open mapping counts every page that it touched as resident memory.

    Raises:
        CheckpointError: the file cannot be read, or has become shorter.
    """
    height, width = _rows(stored)
    rows = range(height) if rows is None else rows
    if not len(rows):
        return np.empty((0, width), np.uint8)
    try:
        if stored.file.stat().st_size < stored.offset + height * width:
            raise ValueError("it was shortened while it was read")
        start = stored.offset + rows.start * width
        mapped = np.memmap(stored.file, np.uint8, "r", offset=start, shape=(len(rows), width))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{stored.file}: tensor {name} cannot be read ({error}); fetch the file again") from None
    size = stored.type.nbytes
    return np.array(mapped if blocks is None else mapped[:, blocks.start * size : blocks.stop * size])


def _rows(stored: StoredTensor) -> tuple[int, int]:
    """Return the number of rows, and the bytes of one; the rows of a vector are its blocks."""
    height = stored.shape[0]
    if len(stored.shape) == 1:
        height //= stored.type.elements
    return height, stored.nbytes // height


def _info(stored: StoredTensor) -> TensorInfo:
    if stored.type.dtype is not None:
        return TensorInfo(stored.file, stored.type.dtype, stored.shape)
    return TensorInfo(stored.file, RAW, _rows(stored))
