"""Where a KV cache lies: in host memory, as numpy arrays, or on a GPU, as OrtValues that are edited there.

On the CPU a buffer is address space: a page takes memory when it is first written. On a GPU nothing of a cache goes to
the host or comes from there: buffers are allocated, enlarged and copied by small graphs on the device.
"""

import mmap
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import prod
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..engine.session import Session
from ..engine.small_graphs import SmallGraphs

# The types that buffers are allocated as, and bound as. numpy has no bfloat16: its bits are stored as uint16 and bound
# by ONNX's number for BFLOAT16.
STORAGE: dict[str, Any] = {"float32": np.float32, "float16": np.float16, "bfloat16": np.uint16, "int8": np.int8}
BOUND: dict[str, Any] = STORAGE | {"bfloat16": 16}

Values = list[Any]
"""The keys and values of every layer of one or more sequences, OrtValues [B, K, P, E]."""


@dataclass(frozen=True)
class Buffer:
    """Keys or values of one layer, [B, K, C, E]: the address, the shape, and the object that owns the memory."""

    address: int
    shape: tuple[int, int, int, int]
    owner: Any

    @property
    def capacity(self) -> int:
        """C."""
        return self.shape[2]


class Memory(Protocol):
    """The memory of a session's device. Buffers are edited in place, so what is bound to them stays bound."""

    def zeros(self, shape: tuple[int, int, int, int]) -> Buffer:
        """Return a new buffer.

        Raises:
            PromptError, OSError, OverflowError, ValueError: there is not enough memory, or address space.
        """
        ...

    def enlarged(self, buffer: Buffer, capacity: int, used: int) -> Buffer:
        """Return a buffer of another capacity with the first ``used`` positions of each slot; errors as ``zeros``."""
        ...

    def copy(self, buffers: Sequence[Buffer], source: int, target: int, used: int) -> None:
        """Copy the first ``used`` positions of one slot to another, in every buffer."""
        ...

    def positions(self, values: Values, row: int, shown: NDArray[np.bool_]) -> Values:
        """Return [1, K, n, E] of [B, K, P, E]: the positions of a row that are ``shown``, bool [P]."""
        ...

    def joined(self, pasts: list[Values]) -> Values:
        """Return [B, K, P, E] of B pasts [1, K, p, E], the shorter ones behind zeros; the pasts are used up."""
        ...


def memory_of(session: Session) -> Memory:
    """Return the memory of the session's device."""
    dtype = STORAGE[session.cache_dtype]
    if session.device == "cpu":
        return HostMemory(session.ort.OrtValue, dtype)
    return DeviceMemory(session.small_graphs, np.dtype(dtype).itemsize)


class HostMemory:
    """Host memory, whose buffers are numpy arrays.

    Args:
        make: the class ``OrtValue``.
        dtype: of the elements.
    """

    def __init__(self, make: Any, dtype: Any) -> None:
        self._make, self._dtype = make, dtype

    def zeros(self, shape: tuple[int, int, int, int]) -> Buffer:
        array = reserve(shape, self._dtype)
        return Buffer(array.ctypes.data, shape, array)

    def enlarged(self, buffer: Buffer, capacity: int, used: int) -> Buffer:
        slots, heads, _, columns = buffer.shape
        larger = self.zeros((slots, heads, capacity, columns))
        larger.owner[:, :, :used] = buffer.owner[:, :, :used]
        return larger

    def copy(self, buffers: Sequence[Buffer], source: int, target: int, used: int) -> None:
        for buffer in buffers:
            buffer.owner[target, :, :used] = buffer.owner[source, :, :used]

    def positions(self, values: Values, row: int, shown: NDArray[np.bool_]) -> Values:
        return [self._value(value.numpy()[row : row + 1, :, shown]) for value in values]

    def joined(self, pasts: list[Values]) -> Values:
        merged = []
        for index in range(len(pasts[0])):
            arrays = [past[index].numpy() for past in pasts]
            longest = max(array.shape[2] for array in arrays)
            _, heads, _, columns = arrays[0].shape
            together = np.zeros((len(arrays), heads, longest, columns), dtype=arrays[0].dtype)
            for slot, array in enumerate(arrays):
                together[slot, :, longest - array.shape[2] :] = array[0]
                pasts[slot][index] = None  # release each past as soon as it is copied
            merged.append(self._value(together))
        return merged

    def _value(self, array: NDArray[Any]) -> Any:
        return self._make.ortvalue_from_numpy(np.ascontiguousarray(array))


class DeviceMemory:
    """The memory of a GPU. Slots are copied as a whole, in one piece a buffer.

    Args:
        graphs: the session's small graphs.
        width: bytes of an element.
    """

    def __init__(self, graphs: SmallGraphs, width: int) -> None:
        self._graphs, self._width = graphs, width

    def zeros(self, shape: tuple[int, int, int, int]) -> Buffer:
        value = self._graphs.zeros(prod(shape) * self._width)
        return Buffer(value.data_ptr(), shape, value)

    def enlarged(self, buffer: Buffer, capacity: int, used: int) -> Buffer:
        slots, heads, before, columns = buffer.shape
        larger = self.zeros((slots, heads, capacity, columns))
        row = columns * self._width
        if used:
            places = ((head * before * row, head * capacity * row) for head in range(slots * heads))
            self._graphs.copy([(buffer.address + old, larger.address + new, used * row) for old, new in places])
        return larger

    def copy(self, buffers: Sequence[Buffer], source: int, target: int, used: int) -> None:
        sizes = [prod(buffer.shape[1:]) * self._width for buffer in buffers]
        self._graphs.copy(
            [
                (buffer.address + source * size, buffer.address + target * size, size)
                for buffer, size in zip(buffers, sizes, strict=True)
            ]
        )

    def positions(self, values: Values, row: int, shown: NDArray[np.bool_]) -> Values:
        places = np.flatnonzero(shown)
        return [self._graphs.positions(value, row, places) for value in values]

    def joined(self, pasts: list[Values]) -> Values:
        merged = []
        for index in range(len(pasts[0])):
            merged.append(self._graphs.joined([past[index] for past in pasts], self._width))
            for past in pasts:
                past[index] = None  # release each past as soon as it is copied
        return merged


def reserve(shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    """Return zeros that take memory only where they are written to, a page at a time.

    Raises:
        OSError: there is not enough address space, or the system refuses it.
        OverflowError: the size is beyond every address space.
    """
    count = prod(shape)
    area = mmap.mmap(-1, max(count * np.dtype(dtype).itemsize, 1))
    if hasattr(mmap, "MADV_NOHUGEPAGE"):
        # Every head of every layer has a region of its own: with huge pages each would take 2 MB at once. A system
        # without huge pages refuses the advice.
        with suppress(OSError):
            area.madvise(mmap.MADV_NOHUGEPAGE)
    return np.frombuffer(area, dtype, count=count).reshape(shape)
