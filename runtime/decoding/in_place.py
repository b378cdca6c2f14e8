"""The decoder of target "ort": inputs, outputs and the KV cache are bound once and updated in place.

A decode step allocates, binds and copies nothing: it writes B tokens and B ones into bound arrays, and reads the logits
from the array that ONNX Runtime writes them to.
"""

from contextlib import nullcontext
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...contract import ATTENTION_MASK, INPUT_IDS, LOGITS, LOGITS_TO_KEEP
from ..engine.session import Session
from ..graph.sliding import same_until
from ..kernels import part_of_a_long_sequence
from .cache import InPlaceCache
from .prefill import prefill_chunks, prefill_step

Floats = NDArray[np.float32]
Tokens = NDArray[np.int64]

# The mask of decode steps grows by this many columns. ONNX Runtime sums its rows in each step; for 32,768 columns that
# takes a hundredth of a step of a 0.5B.
MASK_STEP = 512


class InPlaceDecoder:
    """A ``Decoder`` whose keys and values are appended in place. Arguments and errors as ``open_decoder``."""

    def __init__(self, session: Session, slots: int, longest_prompt: int, max_length: int) -> None:
        self._session = session
        self._facts = session.manifest.model
        self._step = prefill_step(session)
        self._max_length = max_length
        self._lengths, self._numbers = np.zeros(slots, dtype=np.int64), np.arange(slots)
        self._longest = np.zeros(slots, dtype=np.int64)
        self._cache = InPlaceCache(session, slots, longest_prompt, max_length)
        windows = self._facts.layer_windows if session.windowed else ()
        self._windows = sorted({window for window in windows if window is not None})
        self._extending: tuple[int, Any] | None = None  # the slot of ``extend``, and its binding
        self._keep = np.ones(1, dtype=np.int64)
        self._kept: Floats = np.empty((1, self._facts.vocab_size), dtype=np.float32)
        self._tokens = np.zeros((slots, 1), dtype=np.int64)
        self._mask = np.zeros((slots, 0), dtype=np.int64)
        self._logits: Floats = np.empty((slots, self._facts.vocab_size), dtype=np.float32)
        self._stepping: tuple[int, Any] | None = None  # the number of slots of ``step``, and its binding

    @property
    def slots(self) -> int:
        return self._lengths.size

    def length(self, slot: int) -> int:
        return int(self._lengths[slot])

    def longest(self, slot: int) -> int:
        return int(self._longest[slot])

    def prefill(self, slot: int, tokens: Tokens, part: bool = False) -> Floats:
        self._lengths[slot] = 0
        first: Floats = self.extend(slot, tokens, part=part)[0]
        return first

    def extend(self, slot: int, tokens: Tokens, keep: int = 1, part: bool = False) -> Floats:
        past = int(self._lengths[slot])
        self._make_room(past + tokens.size)
        if self._kept.shape[0] < keep:
            self._kept = np.empty((keep, self._facts.vocab_size), dtype=np.float32)
        if self._extending is None or self._extending[0] != slot:
            self._extending = (slot, self._bind_slot(slot))
        binding = self._extending[1]
        self._lengths[slot] = 0  # until the passes have succeeded
        written = 0
        for start, end, kept in prefill_chunks(self._facts, tokens.size, keep, past, self._step):
            binding.bind_cpu_input(INPUT_IDS, np.ascontiguousarray(tokens[None, start:end]))
            binding.bind_cpu_input(ATTENTION_MASK, np.ones((1, past + end), dtype=np.int64))
            self._keep[0] = kept
            if self._session.device != "cpu":
                self._bind_keep(binding)
            _bind_logits(binding, self._kept[written : written + kept])
            with part_of_a_long_sequence() if part else nullcontext():
                self._session.run_bound(binding)
            written += kept if end > tokens.size - keep else 0
        self._set_length(slot, past + tokens.size)
        return self._kept[:keep]

    def step(self, tokens: Tokens, active: NDArray[np.bool_] | None = None) -> Floats:
        count = tokens.size
        stepping = slice(count) if active is None else np.flatnonzero(active)
        lengths = self._lengths[stepping]
        needed = int(lengths.max()) + 1
        if self._stepping is None or self._stepping[0] != count or needed > self._mask.shape[1]:
            self._make_room(needed)
            self._bind_step(count, needed)
        assert self._stepping is not None
        self._tokens[:count, 0] = tokens
        # The sum of a mask's row is the slot's length. An inactive slot keeps its sum and overwrites its last position.
        self._mask[self._numbers[stepping], lengths] = 1
        if self._session.device != "cpu":
            self._bind_inputs(self._stepping[1], count)
        self._session.run_bound(self._stepping[1])
        self._lengths[stepping] += 1
        self._longest[stepping] = np.maximum(self._longest[stepping], self._lengths[stepping])
        return self._logits[:count]

    def rollback(self, slot: int, length: int) -> int:
        now = self.length(slot)
        if length < now:
            self._set_length(slot, length if self.can_return(now, length) else 0)
        return self.length(slot)

    def can_return(self, read: int, length: int) -> bool:
        return all(read <= self._same_until(length, window) for window in self._windows)

    def reversible(self, slot: int) -> int:
        now = int(self._lengths[slot])
        return min([self._max_length, *(self._same_until(now + 1, window) for window in self._windows)]) - now

    def _same_until(self, total: int, window: int) -> int:
        return same_until(total, window, drifts=self._session.device == "cpu")

    def copy(self, source: int, target: int) -> None:
        used = int(self._lengths[source])
        self._cache.copy(source, target, used)
        self._set_length(target, used)

    def saved(self, slot: int) -> list[NDArray[Any]]:
        return self._cache.saved(slot, int(self._lengths[slot]))

    def restore(self, slot: int, values: list[NDArray[Any]], length: int) -> None:
        self._lengths[slot] = 0
        self._make_room(length)
        self._cache.restore(slot, values, length)
        self._set_length(slot, length)

    def _set_length(self, slot: int, length: int) -> None:
        self._lengths[slot] = length
        self._longest[slot] = max(self._longest[slot], length)
        self._mask[slot, :length] = 1
        self._mask[slot, length:] = 0

    def _make_room(self, needed: int) -> None:
        assert needed <= self._max_length, f"{needed} positions needed, max_length is {self._max_length}"
        if needed > self._cache.capacity:
            self._cache.grow(needed, self._max_length, int(self._lengths.max()))
            self._extending = self._stepping = None

    def _bind_slot(self, slot: int) -> Any:
        binding = self._session.raw.io_binding()
        self._cache.bind(binding, slot, 1)
        self._bind_keep(binding)
        return binding

    def _bind_keep(self, binding: Any) -> None:
        """Bind the number of logits. IOBinding takes an input with a default only as an OrtValue.

        On the CPU it shares the array's memory, which is written later; on a GPU it may be a copy.
        """
        binding.bind_ortvalue_input(LOGITS_TO_KEEP, self._session.ort.OrtValue.ortvalue_from_numpy(self._keep))

    def _bind_step(self, count: int, needed: int) -> None:
        """Bind decode steps of ``count`` slots, of which the longest will have ``needed`` tokens.

        A step has one position, so that ``logits_to_keep`` need not be bound where it has a default.
        """
        if needed > self._mask.shape[1]:
            columns = min(self._cache.capacity, -(-needed // MASK_STEP) * MASK_STEP)
            self._mask = (np.arange(columns)[None, :] < self._lengths[:, None]).astype(np.int64)
        if self._stepping is None or self._stepping[0] != count:
            self._stepping = (count, self._session.raw.io_binding())
            self._cache.bind(self._stepping[1], 0, count)
            _bind_logits(self._stepping[1], self._logits[:count], batch=count)
            if any(value.name == LOGITS_TO_KEEP for value in self._session.raw.get_inputs()):
                self._bind_keep(self._stepping[1])
        self._bind_inputs(self._stepping[1], count)

    def _bind_inputs(self, binding: Any, count: int) -> None:
        """Bind tokens and mask: on the CPU the arrays themselves, once; on a GPU copies, again in each step."""
        binding.bind_cpu_input(INPUT_IDS, self._tokens[:count])
        binding.bind_cpu_input(ATTENTION_MASK, self._mask[:count])


def _bind_logits(binding: Any, logits: Floats, batch: int = 1) -> None:
    """Bind the output [B, S, V] to an array [B * S, V]."""
    shape = [batch, logits.shape[0] // batch, logits.shape[1]]
    binding.bind_output(LOGITS, "cpu", 0, np.float32, shape, logits.ctypes.data)
