"""The KV cache of target "ort": one buffer per layer for keys and one for values, read and written in place.

GroupQueryAttention appends in place when past and present are the same memory, which is so when both are bound to one
address. A buffer [B, K, C, E] holds each row's sequence in its first positions; C is the capacity. In a windowed
session a sliding layer's C is that of its window, whatever the length of the text. An int8 cache has a few bytes more
than E in each row.

On the CPU a buffer is address space: a page becomes memory when something is written to it. So the room for the longest
text that can come is taken at once where the memory for it is there, and nothing is ever copied. Where it is not, and
on a GPU, buffers begin with the prompt's room and grow by half, one buffer after the other.
"""

import mmap
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...artifact import ModelFacts
from ...contract import PAST, PRESENT, cache_names
from ...errors import PromptError
from ..engine.machine import available_memory
from ..engine.session import Session
from ..graph.sliding import kept_positions, window_capacity
from ..kernels.edits.int8_cache import row_bytes

# Element types: what memory is allocated as, and what it is bound as. numpy has no bfloat16, so its bits travel as
# uint16 and are bound by ONNX's number for BFLOAT16.
STORAGE: dict[str, Any] = {"float32": np.float32, "float16": np.float16, "bfloat16": np.uint16, "int8": np.int8}
BOUND: dict[str, Any] = STORAGE | {"bfloat16": 16}

STEP = 64  # capacities that are not a limit are multiples of this many tokens
HEADROOM = 256  # tokens of room after the prompt before the first growth


@dataclass(frozen=True)
class Buffer:
    """Keys or values of one layer, [B, K, C, E]: its address, and what holds the memory there."""

    address: int
    capacity: int
    holder: Any

    def array(self) -> NDArray[Any]:
        """The elements; of a GPU's buffer a copy."""
        array: NDArray[Any] = self.holder if isinstance(self.holder, np.ndarray) else self.holder.numpy()
        return array


class SharedCache:
    """The buffers of B rows, with room for ``capacity`` tokens in each.

    Args:
        longest: tokens of the longest prompt.
        limit: the most positions that any row can come to need.

    Raises:
        PromptError: there is not enough memory.
    """

    def __init__(self, session: Session, rows: int, longest: int, limit: int) -> None:
        self._session = session
        self._facts = session.manifest.model
        self.rows = rows
        if self._may_reserve(limit):
            self.capacity = limit
        else:
            self.capacity = min(limit, _round_up(longest + HEADROOM))
            self._require_memory(self.capacity, held=0)
        self._buffers = [self._allocate(index, self.capacity) for index in range(2 * self._facts.num_hidden_layers)]

    def _may_reserve(self, limit: int) -> bool:
        """Whether room for the longest text can be had at once: as address space, and by what memory there is."""
        free = available_memory()
        return self._session.device == "cpu" and (free is None or self.bytes(limit) <= free)

    def bytes(self, tokens: int) -> int:
        """What B rows of so many tokens take."""
        session = self._session
        int8 = session.cache_dtype == "int8"
        return self.rows * cache_bytes(self._facts, tokens, windowed=session.windowed, int8=int8)

    def bind(self, binding: Any, first: int, count: int) -> None:
        """Bind every layer's past and present, of ``count`` rows from ``first`` on."""
        device, dtype = self._session.device, self._session.cache_dtype
        element, width = BOUND[dtype], np.dtype(STORAGE[dtype]).itemsize
        layers = self._facts.num_hidden_layers
        for buffer, past, present in zip(
            self._buffers, cache_names(PAST, layers), cache_names(PRESENT, layers), strict=True
        ):
            shape = [count, self._facts.num_key_value_heads, buffer.capacity, self._session.cache_columns]
            address = buffer.address + first * int(np.prod(shape[1:])) * width
            binding.bind_input(past, device, 0, element, shape, address)
            binding.bind_output(present, device, 0, element, shape, address)

    def grow(self, needed: int, limit: int, used: int) -> None:
        """Make room for ``needed`` tokens, and for half as many again, but for no more than ``limit``.

        The first ``used`` positions are moved to larger buffers, one buffer after the other; bind again afterwards.

        Raises:
            PromptError: there is not enough memory. The buffers are then as they were.
        """
        capacity = min(limit, _round_up(max(needed, self.capacity * 3 // 2)))
        self._require_memory(capacity, held=self.bytes(self.capacity))
        for index, buffer in enumerate(self._buffers):
            if self._window(index) is None:
                self._buffers[index] = self._allocate(index, capacity, buffer.array()[:, :, :used])
        self.capacity = capacity

    def move(self, source: int, target: int, used: int) -> None:
        """Copy the first ``used`` positions of one row over another's."""
        for index, buffer in enumerate(self._buffers):
            array = buffer.array()
            array[target, :, :used] = array[source, :, :used]
            if self._session.device != "cpu":
                self._buffers[index] = self._on_device(array)

    def _window(self, index: int) -> int | None:
        return self._facts.layer_windows[index // 2] if self._session.windowed else None

    def _allocate(self, index: int, capacity: int, content: NDArray[Any] | None = None) -> Buffer:
        window = self._window(index)
        capacity = capacity if window is None else window_capacity(window)
        shape = (self.rows, self._facts.num_key_value_heads, capacity, self._session.cache_columns)
        try:
            array = reserve(shape, STORAGE[self._session.cache_dtype])
        except OSError:
            raise self._too_much(self.capacity, available_memory()) from None
        if content is not None:
            array[:, :, : content.shape[2]] = content
        if self._session.device != "cpu":
            return self._on_device(array)
        return Buffer(array.ctypes.data, capacity, array)

    def _on_device(self, array: NDArray[Any]) -> Buffer:
        value = self._session.ort.OrtValue.ortvalue_from_numpy(array, self._session.device, 0)
        return Buffer(value.data_ptr(), array.shape[2], value)

    def _require_memory(self, capacity: int, held: int) -> None:
        """An allocation succeeds on Linux long before there is memory behind it: ask first, or be killed later."""
        free = available_memory() if self._session.device == "cpu" else None
        if free is not None and self.bytes(capacity) - held > free:
            raise self._too_much(capacity, free)

    def _too_much(self, capacity: int, free: int | None) -> PromptError:
        there = "that is not to be had" if free is None else f"{free / 1e6:,.0f} MB of memory are free"
        return PromptError(
            f"the KV cache for {self.rows} prompt(s) of {capacity:,} tokens needs {self.bytes(capacity) / 1e6:,.0f} "
            f"MB, and {there}; generate fewer tokens, or fewer prompts at once"
        )


def reserve(shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    """Zeros that take memory only where they are written to, a page at a time.

    Raises:
        OSError: there is not even the address space.
    """
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    area = mmap.mmap(-1, max(size, 1))
    if hasattr(mmap, "MADV_NOHUGEPAGE"):
        # Every head of every layer has a region of its own: with pages of 2 MB each would take that much at once.
        area.madvise(mmap.MADV_NOHUGEPAGE)
    return np.frombuffer(area, dtype, count=int(np.prod(shape))).reshape(shape)


def empty_past(session: Session, rows: int) -> Any:
    """A past of no positions, [B, K, 0, E], for a graph whose presents grow."""
    facts = session.manifest.model
    shape = [rows, facts.num_key_value_heads, 0, facts.head_dim]
    make = session.ort.OrtValue
    if facts.cache_dtype == "bfloat16":
        return make.ortvalue_from_shape_and_type(shape, BOUND["bfloat16"], session.device, 0)
    return make.ortvalue_from_numpy(np.zeros(shape, dtype=STORAGE[facts.cache_dtype]), session.device, 0)


def cache_bytes(facts: ModelFacts, tokens: int, *, windowed: bool, int8: bool = False) -> int:
    """Bytes of the keys and values of one row of ``tokens``.

    Args:
        windowed: sliding layers keep no more than their window and its slack.
        int8: keys and values are kept in 8 bits.
    """
    width = row_bytes(facts) if int8 else facts.head_dim * np.dtype(STORAGE[facts.cache_dtype]).itemsize
    kept = kept_positions(facts.layer_windows, tokens) if windowed else tokens * facts.num_hidden_layers
    return int(2 * facts.num_key_value_heads * width * kept)


def _round_up(tokens: int) -> int:
    return -(-tokens // STEP) * STEP
