"""The KV cache of target "ort": one buffer per layer for keys and one for values, read and written in place.

GroupQueryAttention appends in place when past and present are bound to the same address. A buffer [B, K, C, E] has the
keys or values of each slot in its first positions; C is the capacity. In a windowed session C of a sliding layer is
that of its window, whatever the length of the text. An int8 cache adds the bytes of a scale to E.

On the CPU a buffer is address space: a page takes memory when it is first written. So room for the longest possible
text is reserved at once where there is enough memory for it, and nothing is ever copied. Otherwise, and on a GPU,
buffers start with room for the prompt and grow by half, one buffer after the other.
"""

import mmap
from contextlib import suppress
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...artifact import ModelFacts
from ...contract import PAST, PRESENT, cache_names
from ...errors import PromptError
from ...machine import available_memory
from ..engine.session import Session
from ..graph.sliding import kept_positions, window_capacity
from ..kernels.edits.int8_cache import row_bytes

# The types that buffers are allocated as, and bound as. numpy has no bfloat16: its bits are stored as uint16 and bound
# by ONNX's number for BFLOAT16.
STORAGE: dict[str, Any] = {"float32": np.float32, "float16": np.float16, "bfloat16": np.uint16, "int8": np.int8}
BOUND: dict[str, Any] = STORAGE | {"bfloat16": 16}

STEP = 64  # a capacity below the maximum is a multiple of this many tokens
HEADROOM = 256  # tokens of room after the prompt before the first growth


@dataclass(frozen=True)
class Buffer:
    """Keys or values of one layer, [B, K, C, E]: the address, and the object that owns the memory."""

    address: int
    capacity: int
    owner: Any

    def array(self) -> NDArray[Any]:
        """Return the elements; a copy where the buffer is on a GPU."""
        array: NDArray[Any] = self.owner if isinstance(self.owner, np.ndarray) else self.owner.numpy()
        return array


class InPlaceCache:
    """The buffers of B slots, with room for ``capacity`` tokens in each.

    Args:
        slots: B.
        longest_prompt: tokens of the longest prompt.
        max_length: the most positions that any slot can need.

    Raises:
        PromptError: there is not enough memory.
    """

    def __init__(self, session: Session, slots: int, longest_prompt: int, max_length: int) -> None:
        self._session = session
        self._facts = session.manifest.model
        self._pasts = cache_names(PAST, self._facts.num_hidden_layers)
        self._presents = cache_names(PRESENT, self._facts.num_hidden_layers)
        self.slots = slots
        if self._may_reserve(max_length):
            self.capacity = max_length
        else:
            self.capacity = min(max_length, _round_up(longest_prompt + HEADROOM))
            self._require_memory(self.capacity, held=0)
        self._buffers = [self._allocate(index, self.capacity) for index in range(len(self._pasts))]

    def _may_reserve(self, max_length: int) -> bool:
        """Return True where room for the longest text can be reserved at once without running out of memory."""
        free = available_memory()
        return self._session.device == "cpu" and (free is None or self.bytes(max_length) <= free)

    def bytes(self, tokens: int) -> int:
        """Return the size of the cache with so many tokens in each slot."""
        session = self._session
        int8 = session.cache_dtype == "int8"
        return self.slots * cache_bytes(self._facts, tokens, windowed=session.windowed, int8=int8)

    def bind(self, binding: Any, first: int, count: int) -> None:
        """Bind past and present of every layer to ``count`` slots from ``first`` on."""
        device, dtype = self._session.device, self._session.cache_dtype
        element, width = BOUND[dtype], np.dtype(STORAGE[dtype]).itemsize
        for buffer, past, present in zip(self._buffers, self._pasts, self._presents, strict=True):
            shape = [count, self._facts.num_key_value_heads, buffer.capacity, self._session.cache_columns]
            address = buffer.address + first * int(np.prod(shape[1:])) * width
            binding.bind_input(past, device, 0, element, shape, address)
            binding.bind_output(present, device, 0, element, shape, address)

    def grow(self, needed: int, max_length: int, used: int) -> None:
        """Make room for ``needed`` tokens and half as many again, up to ``max_length``.

        The first ``used`` positions are copied to larger buffers, one buffer after the other; bind again afterwards.

        Raises:
            PromptError: there is not enough memory. The buffers are then as they were.
        """
        capacity = min(max_length, _round_up(max(needed, self.capacity * 3 // 2)))
        self._require_memory(capacity, held=self.bytes(self.capacity))
        for index, buffer in enumerate(self._buffers):
            if self._window(index) is None:
                self._buffers[index] = self._allocate(index, capacity, buffer.array()[:, :, :used])
        self.capacity = capacity

    def copy(self, source: int, target: int, used: int) -> None:
        """Copy the first ``used`` positions of one slot to another."""
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
        shape = (self.slots, self._facts.num_key_value_heads, capacity, self._session.cache_columns)
        try:
            array = reserve(shape, STORAGE[self._session.cache_dtype])
        except (OSError, OverflowError, ValueError):
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
        """Check the free memory: Linux grants an allocation without it and kills the process when it is written to."""
        free = available_memory() if self._session.device == "cpu" else None
        if free is not None and self.bytes(capacity) - held > free:
            raise self._too_much(capacity, free)

    def _too_much(self, capacity: int, free: int | None) -> PromptError:
        available = "there is not enough memory" if free is None else f"{free / 1e6:,.0f} MB of memory are free"
        return PromptError(
            f"the KV cache for {self.slots} prompt(s) of {capacity:,} tokens needs {self.bytes(capacity) / 1e6:,.0f} "
            f"MB, and {available}; generate fewer tokens, or fewer prompts at once"
        )


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


def empty_past(session: Session, batch: int) -> Any:
    """Return a past without positions, [B, K, 0, E], for a graph whose presents grow."""
    facts = session.manifest.model
    shape = [batch, facts.num_key_value_heads, 0, facts.head_dim]
    make = session.ort.OrtValue
    if facts.cache_dtype == "bfloat16":
        return make.ortvalue_from_shape_and_type(shape, BOUND["bfloat16"], session.device, 0)
    return make.ortvalue_from_numpy(np.zeros(shape, dtype=STORAGE[facts.cache_dtype]), session.device, 0)


def cache_bytes(facts: ModelFacts, tokens: int, *, windowed: bool, int8: bool = False) -> int:
    """Return the bytes of the keys and values of one sequence of ``tokens``.

    Args:
        windowed: sliding layers keep only their window and its slack.
        int8: keys and values are stored in 8 bits.
    """
    width = row_bytes(facts) if int8 else facts.head_dim * np.dtype(STORAGE[facts.cache_dtype]).itemsize
    kept = kept_positions(facts.layer_windows, tokens) if windowed else tokens * facts.num_hidden_layers
    return int(2 * facts.num_key_value_heads * width * kept)


def _round_up(tokens: int) -> int:
    return -(-tokens // STEP) * STEP
