"""The decoder of target "ort": everything is bound once and updated in place.

A decode step allocates nothing, binds nothing and copies nothing: it writes B tokens and B ones into arrays that are
bound already, and reads the logits where ONNX Runtime has put them.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...contract import ATTENTION_MASK, INPUT_IDS, LOGITS, LOGITS_TO_KEEP
from ..engine.session import Session
from ..graph.sliding import first_kept, same_until
from .cache import SharedCache
from .prefill import chunks

Floats = NDArray[np.float32]
Tokens = NDArray[np.int64]

# The mask of decode steps grows by so many columns. ONNX Runtime adds up a row of it at each step, which for 32,768
# columns takes as long as a hundredth of a step of a 0.5B.
MASK_STEP = 512


class SharedDecoder:
    """``Decoder`` over shared buffers. Arguments and errors as ``open_decoder``."""

    def __init__(self, session: Session, rows: int, longest: int, limit: int) -> None:
        self._session = session
        self._facts = session.manifest.model
        self._limit = limit
        self._lengths, self._numbers = np.zeros(rows, dtype=np.int64), np.arange(rows)
        self._cache = SharedCache(session, rows, longest, limit)
        windows = self._facts.layer_windows if session.windowed else ()
        self._windows = sorted({window for window in windows if window is not None})
        self._extending: tuple[int, Any] | None = None  # the row that the binding of ``extend`` is for, and it
        self._keep = np.ones(1, dtype=np.int64)
        self._kept: Floats = np.empty((1, self._facts.vocab_size), dtype=np.float32)
        self._tokens = np.zeros((rows, 1), dtype=np.int64)
        self._mask = np.zeros((rows, 0), dtype=np.int64)
        self._logits: Floats = np.empty((rows, self._facts.vocab_size), dtype=np.float32)
        self._stepping: tuple[int, Any] | None = None  # how many rows the binding of ``step`` is for, and it

    @property
    def rows(self) -> int:
        return self._lengths.size

    def length(self, row: int) -> int:
        return int(self._lengths[row])

    def prefill(self, row: int, tokens: Tokens) -> Floats:
        self._lengths[row] = 0
        first: Floats = self.extend(row, tokens)[0]
        return first

    def extend(self, row: int, tokens: Tokens, keep: int = 1) -> Floats:
        past = int(self._lengths[row])
        self._make_room(past + tokens.size)
        if self._kept.shape[0] < keep:
            self._kept = np.empty((keep, self._facts.vocab_size), dtype=np.float32)
        if self._extending is None or self._extending[0] != row:
            self._extending = (row, self._bind_row(row))
        binding = self._extending[1]
        self._lengths[row] = 0  # until it is known to have gone well
        filled = 0
        for start, end, kept in chunks(self._facts, tokens.size, keep):
            binding.bind_cpu_input(INPUT_IDS, np.ascontiguousarray(tokens[None, start:end]))
            binding.bind_cpu_input(ATTENTION_MASK, np.ones((1, past + end), dtype=np.int64))
            self._keep[0] = kept
            _bind_logits(binding, self._kept[filled : filled + kept])
            self._session.run_bound(binding)
            filled += kept if end > tokens.size - keep else 0
        self._set_length(row, past + tokens.size)
        return self._kept[:keep]

    def step(self, tokens: Tokens, active: NDArray[np.bool_] | None = None) -> Floats:
        count = tokens.size
        moving = slice(count) if active is None else np.flatnonzero(active)
        lengths = self._lengths[moving]
        needed = int(lengths.max()) + 1
        if self._stepping is None or self._stepping[0] != count or needed > self._mask.shape[1]:
            self._make_room(needed)
            self._bind_step(count, needed)
        assert self._stepping is not None
        self._tokens[:count, 0] = tokens
        # A mask's sum is its row's length. A row that stands still keeps its sum, and so overwrites its last position.
        self._mask[self._numbers[moving], lengths] = 1
        if self._session.device != "cpu":
            self._bind_inputs(self._stepping[1], count)
        self._session.run_bound(self._stepping[1])
        self._lengths[moving] += 1
        return self._logits[:count]

    def rollback(self, row: int, length: int) -> int:
        now = int(self._lengths[row])
        if length < now:
            exact = all(first_kept(length, window) == first_kept(now, window) for window in self._windows)
            self._set_length(row, length if exact else 0)
        return self.length(row)

    def reach(self, row: int) -> int:
        now = int(self._lengths[row])
        return min([self._limit, *(same_until(now + 1, window) for window in self._windows)]) - now

    def move(self, source: int, target: int) -> None:
        used = int(self._lengths[source])
        self._cache.move(source, target, used)
        if self._session.device != "cpu":
            self._extending = self._stepping = None
        self._set_length(target, used)

    def _set_length(self, row: int, length: int) -> None:
        self._lengths[row] = length
        self._mask[row, :length] = 1
        self._mask[row, length:] = 0

    def _make_room(self, needed: int) -> None:
        assert needed <= self._limit, f"{needed} positions, and {self._limit} were asked for"
        if needed > self._cache.capacity:
            self._cache.grow(needed, self._limit, int(self._lengths.max()))
            self._extending = self._stepping = None

    def _bind_row(self, row: int) -> Any:
        binding = self._session.raw.io_binding()
        self._cache.bind(binding, row, 1)
        # An input with a default: IOBinding knows such only as OrtValues. The array is bound, and written to later.
        binding.bind_ortvalue_input(LOGITS_TO_KEEP, self._session.ort.OrtValue.ortvalue_from_numpy(self._keep))
        return binding

    def _bind_step(self, count: int, needed: int) -> None:
        """Bind everything for decode steps of ``count`` rows, of which the longest will have ``needed`` tokens."""
        if needed > self._mask.shape[1]:
            columns = min(self._cache.capacity, -(-needed // MASK_STEP) * MASK_STEP)
            self._mask = (np.arange(columns)[None, :] < self._lengths[:, None]).astype(np.int64)
        if self._stepping is None or self._stepping[0] != count:
            self._stepping = (count, self._session.raw.io_binding())
            self._cache.bind(self._stepping[1], 0, count)
            _bind_logits(self._stepping[1], self._logits[:count], rows=count)
        self._bind_inputs(self._stepping[1], count)

    def _bind_inputs(self, binding: Any, count: int) -> None:
        """On the CPU the arrays themselves are bound, once. A GPU gets copies, so each step binds them again."""
        binding.bind_cpu_input(INPUT_IDS, self._tokens[:count])
        binding.bind_cpu_input(ATTENTION_MASK, self._mask[:count])


def _bind_logits(binding: Any, logits: Floats, rows: int = 1) -> None:
    """Let the logits [rows, S, V] be written to an array [rows * S, V]."""
    shape = [rows, logits.shape[0] // rows, logits.shape[1]]
    binding.bind_output(LOGITS, "cpu", 0, np.float32, shape, logits.ctypes.data)
