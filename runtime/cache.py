"""The KV cache of target "ort": one buffer per layer for keys and one for values, read and written in place.

GroupQueryAttention appends in place when past and present are the same memory, which is so when both are bound to one
address. A buffer [B, K, C, E] holds each row's sequence in rows 0 to its length; C, the capacity, grows in steps.
"""

from typing import Any

import numpy as np

from ..artifact import ModelFacts
from ..errors import PromptError
from .resources import available_memory
from .session import Session

# Element types: what memory is allocated as, and what it is bound as. numpy has no bfloat16, so its bits travel as
# uint16 and are bound by ONNX's number for BFLOAT16.
STORAGE: dict[str, Any] = {"float32": np.float32, "float16": np.float16, "bfloat16": np.uint16}
BOUND: dict[str, Any] = {"float32": np.float32, "float16": np.float16, "bfloat16": 16}

STEP = 64  # capacities are multiples of this many tokens
HEADROOM = 256  # tokens of room after the prompt before the first growth


class SharedCache:
    """The buffers of B rows and their capacity C.

    Raises:
        PromptError: there is not enough memory for the buffers.
    """

    def __init__(self, session: Session, rows: int, capacity: int) -> None:
        self._session = session
        self._facts = session.manifest.model
        self.rows = rows
        self.capacity = capacity
        self._require_memory(capacity, held=0)
        self._buffers = [self._allocate(capacity) for _ in range(2 * self._facts.num_hidden_layers)]

    def bind(self, binding: Any, row: int | None = None) -> None:
        """Bind every layer's past and present, of one row as a batch of 1, or of all rows."""
        facts = self._facts
        shape = [self.rows if row is None else 1, *self._shape(self.capacity)[1:]]
        stride = int(np.prod(shape[1:])) * np.dtype(STORAGE[facts.cache_dtype]).itemsize
        element = BOUND[facts.cache_dtype]
        device = self._session.device
        for index, buffer in enumerate(self._buffers):
            layer, part = index // 2, ("key", "value")[index % 2]
            address = buffer.data_ptr() + (row or 0) * stride
            binding.bind_input(f"past_key_values.{layer}.{part}", device, 0, element, shape, address)
            binding.bind_output(f"present.{layer}.{part}", device, 0, element, shape, address)

    def grow(self, capacity: int, used: int) -> None:
        """Move the first ``used`` positions into larger buffers, one buffer at a time; bind again after."""
        self._require_memory(capacity, held=cache_bytes(self._facts, self.rows, self.capacity))
        for index, buffer in enumerate(self._buffers):
            self._buffers[index] = self._allocate(capacity, buffer.numpy()[:, :, :used])
        self.capacity = capacity

    def _allocate(self, capacity: int, content: Any = None) -> Any:
        array = np.zeros(self._shape(capacity), dtype=STORAGE[self._facts.cache_dtype])
        if content is not None:
            array[:, :, : content.shape[2]] = content
        # On the CPU the OrtValue shares the array's memory and keeps it alive; on a GPU it is a copy there.
        return self._session.ort.OrtValue.ortvalue_from_numpy(array, self._session.device, 0)

    def _require_memory(self, capacity: int, held: int) -> None:
        """An allocation succeeds on Linux long before there is memory behind it: ask first, or be killed later."""
        needed = cache_bytes(self._facts, self.rows, capacity)
        free = available_memory() if self._session.device == "cpu" else None
        if free is not None and needed - held > free:
            raise PromptError(
                f"the KV cache for {self.rows} prompt(s) of {capacity:,} tokens needs {needed / 1e6:,.0f} MB, and "
                f"{free / 1e6:,.0f} MB of memory are free; generate fewer tokens, or fewer prompts at once"
            )

    def _shape(self, capacity: int) -> tuple[int, int, int, int]:
        return (self.rows, self._facts.num_key_value_heads, capacity, self._facts.head_dim)


def empty_past(session: Session, rows: int) -> Any:
    """A past of no positions, [B, K, 0, E], for a graph whose presents grow."""
    facts = session.manifest.model
    shape = [rows, facts.num_key_value_heads, 0, facts.head_dim]
    make = session.ort.OrtValue
    if facts.cache_dtype == "bfloat16":
        return make.ortvalue_from_shape_and_type(shape, BOUND["bfloat16"], session.device, 0)
    return make.ortvalue_from_numpy(np.zeros(shape, dtype=STORAGE[facts.cache_dtype]), session.device, 0)


def first_capacity(prompt: int, limit: int) -> int:
    """Positions for a longest prompt and some room; never more than ``limit``, the most that can be needed."""
    return min(limit, _round_up(prompt + HEADROOM))


def next_capacity(capacity: int, limit: int) -> int:
    """Twice the positions, so that copying costs a constant share of the work; never more than ``limit``."""
    return min(limit, _round_up(2 * capacity))


def cache_bytes(facts: ModelFacts, rows: int, capacity: int) -> int:
    """Bytes of keys and values for B rows of C positions."""
    width = np.dtype(STORAGE[facts.cache_dtype]).itemsize
    return int(2 * facts.num_hidden_layers * rows * facts.num_key_value_heads * capacity * facts.head_dim * width)


def _round_up(tokens: int) -> int:
    return -(-tokens // STEP) * STEP
