"""The KV cache of target "ort": one buffer per layer for keys and one for values, read and written in place.

GroupQueryAttention appends in place when past and present are bound to the same address. A buffer [B, K, C, E] has the
keys or values of each slot in its first positions; C is the capacity. In a windowed session C of a sliding layer is
that of its window, whatever the length of the text. An int8 cache adds the bytes of a scale to E.

On the CPU a buffer is address space: a page takes memory when it is first written. So room for the longest possible
text is reserved at once where there is enough memory for it, and nothing is ever copied. Otherwise, and on a GPU,
buffers start with room for the prompt and grow by half, one buffer after the other.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...contract import PAST, PRESENT, cache_names
from ...errors import PromptError
from ...machine import available_memory
from ..engine.session import Session
from ..graph.sliding import window_capacity
from .memory import BOUND, STORAGE, Buffer, memory_of

STEP = 64  # a capacity below the maximum is a multiple of this many tokens
HEADROOM = 256  # tokens of room after the prompt before the first growth


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
        self._memory = memory_of(session)
        self.slots = slots
        if self._may_reserve(max_length):
            self.capacity = max_length
        else:
            self.capacity = min(max_length, _round_up(longest_prompt + HEADROOM))
            self._require_memory(self.capacity, held=0)
        self._buffers = [self._allocate(index, self.capacity) for index in range(len(self._pasts))]
        session.release_unused()

    def _may_reserve(self, max_length: int) -> bool:
        """Return True where room for the longest text can be reserved at once without running out of memory."""
        free = available_memory()
        return self._session.device == "cpu" and (free is None or self.bytes(max_length) <= free)

    def bytes(self, tokens: int) -> int:
        """Return the size of the cache with so many tokens in each slot."""
        return self.slots * self._session.cache_bytes(tokens)

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
                self._buffers[index] = self._allocate(index, capacity, buffer, used)
                del buffer
                self._session.release_unused()
        self.capacity = capacity

    def copy(self, source: int, target: int, used: int) -> None:
        """Copy the first ``used`` positions of one slot to another."""
        self._memory.copy(self._buffers, source, target, used)

    def saved(self, slot: int, used: int) -> list[NDArray[Any]]:
        """Return views of a slot's first ``used`` positions, [K, P, E] of each buffer, which are in host memory."""
        return [buffer.owner[slot, :, :used] for buffer in self._buffers]

    def restore(self, slot: int, values: list[NDArray[Any]], used: int) -> None:
        """Write what ``saved`` returned into a slot.

        Raises:
            ValueError: the values have other shapes or types than the buffers.
        """
        views = self.saved(slot, used)
        check_saved(values, [(view.shape, view.dtype) for view in views])
        for view, value in zip(views, values, strict=True):
            view[:] = value

    def _window(self, index: int) -> int | None:
        return self._facts.layer_windows[index // 2] if self._session.windowed else None

    def _allocate(self, index: int, capacity: int, smaller: Buffer | None = None, used: int = 0) -> Buffer:
        """Return a buffer, with the first ``used`` positions of a smaller one."""
        window = self._window(index)
        capacity = capacity if window is None else window_capacity(window)
        try:
            if smaller is not None:
                return self._memory.enlarged(smaller, capacity, used)
            return self._memory.zeros(
                (self.slots, self._facts.num_key_value_heads, capacity, self._session.cache_columns)
            )
        except (OSError, OverflowError, ValueError):
            raise self._too_much(self.capacity, available_memory()) from None

    def _require_memory(self, capacity: int, held: int) -> None:
        """Check the free memory: Linux grants an allocation without it and kills the process when it is written to.

        On a GPU the buffers of one layer lie there twice while they are enlarged, which costs at most what is held.
        """
        needed = self.bytes(capacity) - held
        free = available_memory() if self._session.device == "cpu" else self._session.free_gpu_memory(needed)
        if free is not None and needed > free:
            raise self._too_much(capacity, free)

    def _too_much(self, capacity: int, free: int | None) -> PromptError:
        where = self._session.memory_name
        available = f"there is not enough {where}" if free is None else f"{free / 1e6:,.0f} MB of {where} are free"
        return PromptError(
            f"the KV cache for {self.slots} prompt(s) of {capacity:,} tokens needs {self.bytes(capacity) / 1e6:,.0f} "
            f"MB, and {available}; generate fewer tokens, or fewer prompts at once"
        )


def check_saved(values: list[NDArray[Any]], wanted: list[tuple[tuple[int, ...], np.dtype[Any]]]) -> None:
    """Check the shapes and types of keys and values that were saved.

    Raises:
        ValueError: they are not those that are wanted.
    """
    found = [(value.shape, value.dtype) for value in values]
    if found != wanted:
        raise ValueError(f"the keys and values are {len(found)} arrays such as {found[:1]}, not {wanted[:1]}")


def empty_past(session: Session, batch: int) -> Any:
    """Return a past without positions, [B, K, 0, E], for a graph whose presents grow."""
    facts = session.manifest.model
    shape = [batch, facts.num_key_value_heads, 0, facts.head_dim]
    make = session.ort.OrtValue
    if facts.cache_dtype == "bfloat16":
        return make.ortvalue_from_shape_and_type(shape, BOUND["bfloat16"], session.device, 0)
    return make.ortvalue_from_numpy(np.zeros(shape, dtype=STORAGE[facts.cache_dtype]), session.device, 0)


def _round_up(tokens: int) -> int:
    return -(-tokens // STEP) * STEP
