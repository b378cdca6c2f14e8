"""The decoder of target "standard": the present of each pass, [B, K, P + S, E], is the past of the next.

Slots are prefilled one by one. Decode steps merge them into one batch, the shorter ones behind zeros that the mask
hides. The batch is split again when a slot is extended, copied or rolled back. That costs no more than a step, which
copies every past as well.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...contract import ATTENTION_MASK, INPUT_IDS, LOGITS, LOGITS_TO_KEEP, PAST, PRESENT, cache_names
from ..engine.session import Session
from .cache import check_saved, empty_past
from .memory import STORAGE, memory_of
from .prefill import prefill_chunks, prefill_step

Floats = NDArray[np.float32]
Tokens = NDArray[np.int64]


class GrowingDecoder:
    """A ``Decoder`` whose keys and values are copied to a longer past in each pass."""

    def __init__(self, session: Session, slots: int) -> None:
        self._session = session
        self._facts = session.manifest.model
        self._step = prefill_step(session)
        self._inputs = cache_names(PAST, self._facts.num_hidden_layers)
        self._outputs = cache_names(PRESENT, self._facts.num_hidden_layers)
        self._memory = memory_of(session)
        self._lengths = [0] * slots
        self._alone: list[list[Any]] = [[] for _ in range(slots)]  # the pasts of slots outside the batch
        self._batch: list[Any] = []  # the merged pasts of the first slots
        self._mask = np.zeros((0, 0), dtype=np.int64)

    @property
    def slots(self) -> int:
        return len(self._lengths)

    def length(self, slot: int) -> int:
        return self._lengths[slot]

    def longest(self, slot: int) -> int:
        return self._lengths[slot]  # a shorter past takes less memory

    def prefill(self, slot: int, tokens: Tokens, part: bool = False) -> Floats:
        self._split()
        self._alone[slot] = []
        self._lengths[slot] = 0
        first: Floats = self.extend(slot, tokens)[0]
        return first

    def extend(self, slot: int, tokens: Tokens, keep: int = 1, part: bool = False) -> Floats:
        self._split()
        past, length = self._alone[slot], self._lengths[slot]
        if not past:
            past = [empty_past(self._session, 1) for _ in self._inputs]
        logits_kept = []
        for start, end, kept in prefill_chunks(self._facts, tokens.size, keep, length, self._step):
            mask = np.ones((1, length + end), dtype=np.int64)
            logits, past = self._run(tokens[None, start:end], mask, past, kept)
            logits_kept.append(logits[0])
        self._alone[slot], self._lengths[slot] = past, length + tokens.size
        return logits_kept[0] if len(logits_kept) == 1 else np.concatenate(logits_kept)[-keep:]

    def step(self, tokens: Tokens, active: NDArray[np.bool_] | None = None) -> Floats:
        stepping = np.ones(tokens.size, dtype=bool) if active is None else active
        if len(self._mask) != tokens.size:
            self._split()
            self._merge(tokens.size)
        mask = np.concatenate([self._mask, stepping[:, None].astype(np.int64)], axis=1)
        logits, self._batch = self._run(tokens[:, None], mask, self._batch, 1)
        self._mask = mask
        for slot in np.flatnonzero(stepping).tolist():
            self._lengths[slot] += 1
        last: Floats = logits[:, -1]
        return last

    def rollback(self, slot: int, length: int) -> int:
        if length < self._lengths[slot]:
            self._split()
            shown = np.arange(self._lengths[slot]) < length
            self._alone[slot] = self._memory.positions(self._alone[slot], 0, shown) if length else []
            self._lengths[slot] = length
        return self._lengths[slot]

    def can_return(self, read: int, length: int) -> bool:
        return True

    def reversible(self, slot: int) -> int:
        return self._facts.context_length - self._lengths[slot]

    def copy(self, source: int, target: int) -> None:
        self._split()
        self._alone[target], self._lengths[target] = list(self._alone[source]), self._lengths[source]

    def saved(self, slot: int) -> list[NDArray[Any]]:
        self._split()
        return [value.numpy()[0] for value in self._alone[slot]]

    def restore(self, slot: int, values: list[NDArray[Any]], length: int) -> None:
        self._split()
        self._alone[slot], self._lengths[slot] = [], 0
        facts = self._session.manifest.model
        shape = (facts.num_key_value_heads, length, facts.head_dim)
        check_saved(values, [(shape, np.dtype(STORAGE[facts.cache_dtype]))] * len(self._inputs))
        self._alone[slot] = [self._session.ort.OrtValue.ortvalue_from_numpy(value[None]) for value in values]
        self._lengths[slot] = length

    def _split(self) -> None:
        """Split the batch into the pasts of its slots."""
        if len(self._mask) == 1:
            self._alone[0] = self._batch
        else:
            for slot, shown in enumerate(self._mask.astype(bool)):
                self._alone[slot] = self._memory.positions(self._batch, slot, shown)
        self._batch, self._mask = [], np.zeros((0, 0), dtype=np.int64)

    def _merge(self, count: int) -> None:
        """Merge the pasts of the first ``count`` slots into a batch."""
        lengths = np.array(self._lengths[:count])
        longest = int(lengths.max())
        self._mask = (np.arange(longest)[None, :] >= longest - lengths[:, None]).astype(np.int64)
        self._batch = self._alone[0] if count == 1 else self._memory.joined(self._alone[:count])
        for slot in range(count):
            self._alone[slot] = []

    def _run(self, tokens: Tokens, mask: Tokens, past: list[Any], keep: int) -> tuple[Floats, list[Any]]:
        """Run the graph; return logits [B, keep, V] and the present."""
        binding = self._session.raw.io_binding()
        binding.bind_cpu_input(INPUT_IDS, np.ascontiguousarray(tokens))
        binding.bind_cpu_input(ATTENTION_MASK, mask)
        kept = np.array([keep], dtype=np.int64)  # shared with the OrtValue, so it must live as long
        binding.bind_ortvalue_input(LOGITS_TO_KEEP, self._session.ort.OrtValue.ortvalue_from_numpy(kept))
        for name, value in zip(self._inputs, past, strict=True):
            binding.bind_ortvalue_input(name, value)
        binding.bind_output(LOGITS, "cpu")
        for name in self._outputs:
            binding.bind_output(name, self._session.device, 0)
        self._session.run_bound(binding)
        logits, *present = binding.get_outputs()
        return logits.numpy(), present
