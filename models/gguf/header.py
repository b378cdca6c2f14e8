"""The header of a GGUF file: metadata and the tensors' names, types, shapes and offsets.

Every count and length is checked against the size of the file before memory is taken for it, and against limits that
are several times what published files have.

Specification: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3, little endian.
"""

import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import BinaryIO, NoReturn, TypeAlias

import numpy as np
import numpy.typing as npt

from ...errors import CheckpointError, UnsupportedError
from ...files.json_fields import shown
from ...files.library_errors import library_errors
from ...files.regular_file import check_regular
from .types import BLOCK_TYPES, UNREADABLE, BlockType

MAGIC = b"GGUF"
VERSIONS = (2, 3)
ALIGNMENT = "general.alignment"
DEFAULT_ALIGNMENT = 32
MOST_DIMENSIONS = 4
"""GGML_MAX_DIMS."""

MOST_ENTRIES = 1 << 16
"""Of metadata, and of tensors; published files have a few dozen and about a thousand."""
MOST_ELEMENTS = 1 << 23
"""Of all arrays together; a vocabulary of 256,000 tokens with types, scores and merges has about a million."""
MOST_TEXT = 1 << 28
"""Bytes of the header; that of a vocabulary of 256,000 tokens has about 10 MB."""
MOST_NESTING = 4
"""Arrays in arrays."""

SCALARS: Mapping[int, str] = {
    0: "<u1",
    1: "<i1",
    2: "<u2",
    3: "<i2",
    4: "<u4",
    5: "<i4",
    6: "<f4",
    7: "<u1",  # a boolean
    10: "<u8",
    11: "<i8",
    12: "<f8",
}
"""numpy's dtype of each type of numbers."""
BOOLEAN, STRING, ARRAY = 7, 8, 9

LEAST_ENTRY = 8 + 4 + 1
"""Bytes of the shortest entry of metadata: the length of its key, its type, and a value."""
LEAST_TENSOR = 8 + 4 + 8 + 4 + 8
"""Bytes of the shortest description of a tensor: the length of its name, one dimension, its type and offset."""
LEAST_ELEMENT: Mapping[int, int] = {STRING: 8, ARRAY: 4 + 8}

Value: TypeAlias = "bool | int | float | str | npt.NDArray[np.generic] | list[Value]"
"""A value of metadata; an array of numbers is a numpy array, other arrays are lists."""


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor is: its ``offset`` in ``file`` in bytes; ``shape`` with rows first, as in torch."""

    file: Path
    type: BlockType
    shape: tuple[int, ...]
    offset: int

    @property
    def nbytes(self) -> int:
        """Return the bytes that it takes in the file."""
        return prod(self.shape) // self.type.elements * self.type.nbytes


@dataclass(frozen=True)
class Header:
    """``metadata`` by key, and ``tensors`` by their names in the file."""

    metadata: Mapping[str, Value]
    tensors: Mapping[str, StoredTensor]


def read_header(path: Path) -> Header:
    """Read the header of a GGUF file.

    Raises:
        CheckpointError: the file is damaged, or it is no GGUF file.
        UnsupportedError: another version or byte order, or a tensor of a type that is not read.
    """

    def refusal(reason: str) -> CheckpointError:
        return CheckpointError(f"{path} cannot be read ({reason}); fetch it again")

    with library_errors(refusal):
        check_regular(path)
        with path.open("rb") as stream:
            return _Reader(path, stream).read()


class _Reader:
    def __init__(self, path: Path, stream: BinaryIO) -> None:
        self.path = path
        self.stream = stream
        self.size = os.fstat(stream.fileno()).st_size
        self.position = 0
        self.elements = 0

    def read(self) -> Header:
        self._check_version()
        tensors, entries = self._number("<Q"), self._number("<Q")
        self._check_count(entries, LEAST_ENTRY, MOST_ENTRIES, "entries of metadata")
        self._check_count(tensors, LEAST_TENSOR, MOST_ENTRIES, "tensors")
        metadata: dict[str, Value] = {}
        for _ in range(entries):
            key = self._string("a key of its metadata")
            if key in metadata:
                self._damaged(f"its metadata has {shown(key)} twice")
            metadata[key] = self._value(int(self._number("<I")), key, MOST_NESTING)
        return Header(metadata, self._tensors(tensors, _alignment(self.path, metadata)))

    def _check_version(self) -> None:
        magic = self._bytes(4, "its beginning")
        if magic != MAGIC:
            raise CheckpointError(f"{self.path} is not a GGUF file: it begins with {magic!r}; fetch it again")
        version = self._number("<I")
        if version in VERSIONS:
            return
        if int.from_bytes(int(version).to_bytes(4, "little"), "big") in VERSIONS:
            raise UnsupportedError(
                f"{self.path} is a GGUF file in big endian, which is not read; convert it with gguf-py's "
                "gguf-convert-endian, or fetch one in little endian"
            )
        raise UnsupportedError(
            f"{self.path} is a GGUF file of version {version:,}, and versions 2 and 3 are read; make it again with a "
            "recent llama.cpp"
        )

    def _tensors(self, count: int, alignment: int) -> dict[str, StoredTensor]:
        described: dict[str, tuple[BlockType, tuple[int, ...], int]] = {}
        for _ in range(count):
            name = self._string("a tensor's name")
            if name in described:
                self._damaged(f"tensor {shown(name)} is in it twice")
            described[name] = self._description(name)
        start = -(-self.position // alignment) * alignment
        tensors = {
            name: StoredTensor(self.path, kind, shape, start + offset)
            for name, (kind, shape, offset) in described.items()
        }
        self._check_places(tensors, start, alignment)
        return tensors

    def _description(self, name: str) -> tuple[BlockType, tuple[int, ...], int]:
        """Return the type, the shape with rows first, and the offset behind the header."""
        dimensions = self._number("<I")
        if not 1 <= dimensions <= MOST_DIMENSIONS:
            self._damaged(f"tensor {shown(name)} has {dimensions:,} dimensions, expected 1 to {MOST_DIMENSIONS}")
        shape = tuple(int(self._number("<Q")) for _ in range(dimensions))[::-1]
        number, offset = int(self._number("<I")), int(self._number("<Q"))
        if number not in BLOCK_TYPES:
            named = UNREADABLE.get(number)
            raise UnsupportedError(
                f"{self.path}: tensor {name} is of the type {named or f'number {number:,}'}, which is not read (those "
                f"that are: {', '.join(kind.name for kind in BLOCK_TYPES.values())}); use a file of one of these types"
            )
        kind = BLOCK_TYPES[number]
        if 0 in shape or prod(shape) > 8 * self.size * kind.elements:
            self._damaged(f"tensor {shown(name)} has the shape {shape}, which the file cannot hold")
        if shape[-1] % kind.elements:
            self._damaged(
                f"tensor {shown(name)} has rows of {shape[-1]:,} numbers, and {kind.name} has blocks of {kind.elements}"
            )
        return kind, shape, offset

    def _check_places(self, tensors: Mapping[str, StoredTensor], start: int, alignment: int) -> None:
        """Check that tensors are aligned, inside the file, and not on top of each other."""
        end, before = start, ""
        for name, tensor in sorted(tensors.items(), key=lambda item: item[1].offset):
            if tensor.offset % alignment:
                self._damaged(f"tensor {shown(name)} has an offset that is no multiple of the alignment, {alignment}")
            if tensor.offset + tensor.nbytes > self.size:
                self._damaged(
                    f"tensor {shown(name)} ends at byte {tensor.offset + tensor.nbytes:,}, and the file has "
                    f"{self.size:,} bytes"
                )
            if tensor.offset < end:
                self._damaged(f"the tensors {shown(before)} and {shown(name)} overlap")
            end, before = tensor.offset + tensor.nbytes, name

    def _value(self, kind: int, key: str, nesting: int) -> Value:
        if kind == STRING:
            return self._string(shown(key))
        if kind == ARRAY:
            return self._array(key, nesting)
        if kind not in SCALARS:
            self._damaged(f"{shown(key)} has a value of type {kind:,}, which there is not")
        number = np.frombuffer(self._bytes(np.dtype(SCALARS[kind]).itemsize, shown(key)), SCALARS[kind])[0].item()
        return self._boolean(number, key) if kind == BOOLEAN else number

    def _array(self, key: str, nesting: int) -> Value:
        if nesting == 0:
            self._damaged(f"{shown(key)} has arrays in arrays, more than {MOST_NESTING} deep")
        kind, count = int(self._number("<I")), int(self._number("<Q"))
        dtype = None if kind not in SCALARS else np.dtype(SCALARS[kind])
        if dtype is None and kind not in LEAST_ELEMENT:
            self._damaged(f"{shown(key)} has values of type {kind:,}, which there is not")
        least = LEAST_ELEMENT[kind] if dtype is None else dtype.itemsize
        self._check_count(count, least, MOST_ELEMENTS - self.elements, f"elements of {shown(key)}")
        self.elements += count
        if dtype is None:
            return [self._value(kind, key, nesting - 1) for _ in range(count)]
        numbers = np.frombuffer(self._bytes(count * dtype.itemsize, shown(key)), dtype)
        if kind == BOOLEAN and numbers.size and numbers.max() > 1:
            self._damaged(f"{shown(key)} has a boolean that is neither 0 nor 1")
        return numbers.astype(bool) if kind == BOOLEAN else numbers

    def _boolean(self, number: int, key: str) -> bool:
        if number > 1:
            self._damaged(f"{shown(key)} is a boolean that is neither 0 nor 1")
        return bool(number)

    def _string(self, what: str) -> str:
        length = int(self._number("<Q"))
        data = self._bytes(length, what)
        try:
            return data.decode()
        except UnicodeDecodeError:
            self._damaged(f"{what} is a text that is not UTF-8")

    def _number(self, form: str) -> int:
        number: int = struct.unpack(form, self._bytes(struct.calcsize(form), "a number of its header"))[0]
        return number

    def _bytes(self, count: int, what: str) -> bytes:
        if count > self.size - self.position:
            self._damaged(f"{what} needs {count:,} bytes, and {self.size - self.position:,} are left of the file")
        if self.position + count > MOST_TEXT:
            self._damaged(f"its header is longer than the {MOST_TEXT:,} bytes that one may have")
        data = self.stream.read(count)
        if len(data) != count:
            self._damaged("it was shortened while it was read")
        self.position += count
        return data

    def _check_count(self, count: int, least: int, most: int, what: str) -> None:
        if count * least > self.size - self.position:
            self._damaged(
                f"it has {count:,} {what}, which take at least {count * least:,} bytes, and "
                f"{self.size - self.position:,} are left of the file"
            )
        if count > most:
            self._damaged(f"it has {count:,} {what}, more than the {most:,} that are read")

    def _damaged(self, reason: str) -> NoReturn:
        raise CheckpointError(f"{self.path} is damaged ({reason}); fetch it again")


def _alignment(path: Path, metadata: Mapping[str, Value]) -> int:
    value = metadata.get(ALIGNMENT, DEFAULT_ALIGNMENT)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1 or value & (value - 1) or value > MOST_TEXT:
        raise CheckpointError(f"{path}: {ALIGNMENT} is {shown(value)}, expected a power of two; fetch the file again")
    return value
