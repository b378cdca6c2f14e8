"""The decoder of target "standard": each pass's present, [B, K, P + S, E], is the next one's past.

Rows are read alone; decode steps put them side by side, the shorter ones behind zeros that the mask hides. A batch is
taken apart when one of its rows is read, moved or brought back, which costs no more than a step: that copies every past
as well.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...contract import ATTENTION_MASK, INPUT_IDS, LOGITS, LOGITS_TO_KEEP, PAST, PRESENT, cache_names
from ..engine.session import Session
from .cache import empty_past
from .prefill import chunks

Floats = NDArray[np.float32]
Tokens = NDArray[np.int64]


class ConcatDecoder:
    """``Decoder`` over growing pasts."""

    def __init__(self, session: Session, rows: int) -> None:
        self._session = session
        self._facts = session.manifest.model
        self._inputs = cache_names(PAST, self._facts.num_hidden_layers)
        self._outputs = cache_names(PRESENT, self._facts.num_hidden_layers)
        self._lengths = [0] * rows
        self._alone: list[list[Any]] = [[] for _ in range(rows)]  # the pasts of rows that are not in the batch
        self._batch: list[Any] = []  # the pasts of the first rows, side by side
        self._mask = np.zeros((0, 0), dtype=np.int64)

    @property
    def rows(self) -> int:
        return len(self._lengths)

    def length(self, row: int) -> int:
        return self._lengths[row]

    def prefill(self, row: int, tokens: Tokens) -> Floats:
        self._split()
        self._alone[row] = []
        self._lengths[row] = 0
        first: Floats = self.extend(row, tokens)[0]
        return first

    def extend(self, row: int, tokens: Tokens, keep: int = 1) -> Floats:
        self._split()
        past, length = self._alone[row], self._lengths[row]
        if not past:
            past = [empty_past(self._session, 1) for _ in self._inputs]
        found = []
        for start, end, kept in chunks(self._facts, tokens.size, keep):
            mask = np.ones((1, length + end), dtype=np.int64)
            logits, past = self._run(tokens[None, start:end], mask, past, kept)
            found.append(logits[0])
        self._alone[row], self._lengths[row] = past, length + tokens.size
        return found[0] if len(found) == 1 else np.concatenate(found)[-keep:]

    def step(self, tokens: Tokens, active: NDArray[np.bool_] | None = None) -> Floats:
        moving = np.ones(tokens.size, dtype=bool) if active is None else active
        if len(self._mask) != tokens.size:
            self._split()
            self._merge(tokens.size)
        mask = np.concatenate([self._mask, moving[:, None].astype(np.int64)], axis=1)
        logits, self._batch = self._run(tokens[:, None], mask, self._batch, 1)
        self._mask = mask
        for row in np.flatnonzero(moving).tolist():
            self._lengths[row] += 1
        last: Floats = logits[:, -1]
        return last

    def rollback(self, row: int, length: int) -> int:
        if length < self._lengths[row]:
            self._split()
            # bfloat16 has no host arrays to slice
            length = 0 if self._facts.cache_dtype == "bfloat16" else length
            arrays = [value.numpy()[:, :, :length] for value in self._alone[row]] if length else []
            self._alone[row] = [self._ortvalue(np.ascontiguousarray(array)) for array in arrays]
            self._lengths[row] = length
        return self._lengths[row]

    def reach(self, row: int) -> int:
        return 1 if self._facts.cache_dtype == "bfloat16" else self._facts.context_length - self._lengths[row]

    def move(self, source: int, target: int) -> None:
        self._split()
        self._alone[target], self._lengths[target] = list(self._alone[source]), self._lengths[source]

    def _split(self) -> None:
        """Take the batch apart into the pasts of its rows."""
        if len(self._mask) == 1:
            self._alone[0] = self._batch
        else:
            arrays = [value.numpy() for value in self._batch]
            for row, shown in enumerate(self._mask.astype(bool)):
                self._alone[row] = [self._ortvalue(array[row : row + 1, :, shown]) for array in arrays]
        self._batch, self._mask = [], np.zeros((0, 0), dtype=np.int64)

    def _merge(self, count: int) -> None:
        """Put the first ``count`` rows side by side."""
        lengths = np.array(self._lengths[:count])
        longest = int(lengths.max())
        self._mask = (np.arange(longest)[None, :] >= longest - lengths[:, None]).astype(np.int64)
        pasts = self._alone[:count]
        self._batch = []
        for index in range(len(self._inputs)):
            if count == 1:
                self._batch.append(pasts[0][index])
                continue
            parts = [past[index].numpy() for past in pasts]
            merged = np.zeros((count, parts[0].shape[1], longest, parts[0].shape[3]), dtype=parts[0].dtype)
            for row, part in enumerate(parts):
                merged[row, :, longest - part.shape[2] :] = part[0]
                pasts[row][index] = None  # let go of each part as soon as it is copied
            self._batch.append(self._ortvalue(merged))
        for row in range(count):
            self._alone[row] = []

    def _run(self, tokens: Tokens, mask: Tokens, past: list[Any], keep: int) -> tuple[Floats, list[Any]]:
        """Logits [B, keep, V] and the present."""
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

    def _ortvalue(self, array: NDArray[Any]) -> Any:
        contiguous = np.ascontiguousarray(array)
        return self._session.ort.OrtValue.ortvalue_from_numpy(contiguous, self._session.device, 0)
