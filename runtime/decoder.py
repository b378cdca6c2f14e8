"""Prefill and decode steps over the rows of a batch, for both targets.

A decoder holds the sequences of B rows. ``prefill`` runs one row's prompt, as a batch of 1, and gives the logits that
choose its first token; ``step`` then feeds one token to every row at once. Rows have different lengths and do not see
each other.
"""

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .cache import SharedCache, empty_past, first_capacity, next_capacity
from .session import Session

Floats = NDArray[np.float32]
Tokens = NDArray[np.int64]

# A prompt is prefilled in pieces of this many tokens: activations (an MLP's are the widest) then stay small however
# long the prompt, and the matrix products are already as fast as they get.
PREFILL_CHUNK = 1024


class Decoder(Protocol):
    """B rows and what they have read so far."""

    def prefill(self, row: int, tokens: Tokens) -> Floats:
        """Read a row's prompt, int64 [S]; logits [V] of its last position, valid until the next call."""

    def step(self, tokens: Tokens, active: NDArray[np.bool_]) -> Floats:
        """Read one token per row, int64 [B]; logits [B, V], valid until the next call.

        Rows that are not ``active`` stand still, and their logits mean nothing.
        """


def open_decoder(session: Session, rows: int, longest: int, limit: int) -> Decoder:
    """A decoder for the artifact's target.

    Args:
        rows: B; at most ``rows_together(session)``.
        longest: tokens of the longest prompt.
        limit: the most positions that any row can come to need.
    """
    if session.manifest.target == "standard":
        return ConcatDecoder(session, rows)
    return SharedDecoder(session, rows, longest, limit)


def rows_together(session: Session, wanted: int) -> int:
    """How many rows may share a batch.

    Merging the rows of a standard artifact's cache needs host arrays, which bfloat16 does not have.
    """
    alone = session.manifest.target == "standard" and session.manifest.model.cache_dtype == "bfloat16"
    return 1 if alone else wanted


def chunks(session: Session, length: int) -> list[tuple[int, int]]:
    """The pieces of a prompt that are prefilled one after the other."""
    size = length if session.manifest.model.length_dependent_rope else PREFILL_CHUNK
    return [(start, min(start + size, length)) for start in range(0, length, size)]


class SharedDecoder:
    """Target "ort": everything is bound once and updated in place, so that a step allocates and rebinds nothing."""

    def __init__(self, session: Session, rows: int, longest: int, limit: int) -> None:
        self._session = session
        self._limit = limit
        self._lengths = np.zeros(rows, dtype=np.int64)
        self._cache = SharedCache(session, rows, first_capacity(longest, limit))
        vocab = session.manifest.model.vocab_size
        self._first_logits: Floats = np.empty((1, 1, vocab), dtype=np.float32)
        self._tokens = np.zeros((rows, 1), dtype=np.int64)
        self._logits: Floats = np.empty((rows, 1, vocab), dtype=np.float32)
        self._mask = np.zeros((rows, 0), dtype=np.int64)
        self._binding: Any = None

    def prefill(self, row: int, tokens: Tokens) -> Floats:
        for start, end in chunks(self._session, tokens.size):
            binding = self._session.raw.io_binding()
            self._cache.bind(binding, row)
            binding.bind_cpu_input("input_ids", np.ascontiguousarray(tokens[None, start:end]))
            binding.bind_cpu_input("attention_mask", np.ones((1, end), dtype=np.int64))
            _bind_logits(binding, self._first_logits)
            self._session.run_bound(binding)
        self._lengths[row] = tokens.size
        first: Floats = self._first_logits[0, 0]
        return first

    def step(self, tokens: Tokens, active: NDArray[np.bool_]) -> Floats:
        if self._binding is None or int(self._lengths.max()) >= self._cache.capacity:
            self._bind()
        self._tokens[:, 0] = tokens
        rows = np.flatnonzero(active)
        # A mask's sum is its row's length. A row that stands still keeps its sum, and so overwrites its last position.
        self._mask[rows, self._lengths[rows]] = 1
        self._lengths[rows] += 1
        if self._session.device != "cpu":
            self._bind_inputs()
        self._session.run_bound(self._binding)
        return self._logits[:, 0]

    def _bind(self) -> None:
        """Bind everything for the decode steps, after growing the cache if the longest row has filled it."""
        used = int(self._lengths.max())
        if used >= self._cache.capacity:
            self._cache.grow(next_capacity(self._cache.capacity, self._limit), used)
        mask = np.arange(self._cache.capacity)[None, :] < self._lengths[:, None]
        self._mask = mask.astype(np.int64)
        self._binding = self._session.raw.io_binding()
        self._cache.bind(self._binding)
        _bind_logits(self._binding, self._logits)
        self._bind_inputs()

    def _bind_inputs(self) -> None:
        """On the CPU the arrays themselves are bound, once. A GPU gets copies, so each step binds them again."""
        self._binding.bind_cpu_input("input_ids", self._tokens)
        self._binding.bind_cpu_input("attention_mask", self._mask)


class ConcatDecoder:
    """Target "standard": each step's present, [B, K, P + S, E], becomes the next step's past.

    Rows are prefilled alone; before the first step they are put side by side, the shorter ones behind zeros that the
    mask hides.
    """

    def __init__(self, session: Session, rows: int) -> None:
        self._session = session
        names = [f"{i}.{part}" for i in range(session.manifest.model.num_hidden_layers) for part in ("key", "value")]
        self._inputs = [f"past_key_values.{name}" for name in names]
        self._outputs = [f"present.{name}" for name in names]
        self._pasts: list[list[Any]] = [[] for _ in range(rows)]
        self._lengths = np.zeros(rows, dtype=np.int64)
        self._past: list[Any] = []
        self._mask = np.zeros((rows, 0), dtype=np.int64)

    def prefill(self, row: int, tokens: Tokens) -> Floats:
        past = [empty_past(self._session, 1) for _ in self._inputs]
        logits: Floats = np.empty(0, dtype=np.float32)
        for start, end in chunks(self._session, tokens.size):
            logits, past = self._run(tokens[None, start:end], np.ones((1, end), dtype=np.int64), past)
        self._pasts[row] = past
        self._lengths[row] = tokens.size
        first: Floats = logits[0]
        return first

    def step(self, tokens: Tokens, active: NDArray[np.bool_]) -> Floats:
        if self._pasts:
            self._merge()
        self._mask = np.concatenate([self._mask, active[:, None].astype(np.int64)], axis=1)
        logits, self._past = self._run(tokens[:, None], self._mask, self._past)
        return logits

    def _merge(self) -> None:
        longest = int(self._lengths.max())
        self._mask = (np.arange(longest)[None, :] >= longest - self._lengths[:, None]).astype(np.int64)
        if len(self._pasts) == 1:
            self._past = self._pasts[0]
        else:
            for index in range(len(self._inputs)):
                parts = [past[index].numpy() for past in self._pasts]
                merged = np.zeros((len(parts), parts[0].shape[1], longest, parts[0].shape[3]), dtype=parts[0].dtype)
                for row, part in enumerate(parts):
                    merged[row, :, longest - part.shape[2] :] = part[0]
                    self._pasts[row][index] = None  # let go of each part as soon as it is copied
                self._past.append(self._ortvalue(merged))
        self._pasts = []

    def _run(self, tokens: Tokens, mask: Tokens, past: list[Any]) -> tuple[Floats, list[Any]]:
        binding = self._session.raw.io_binding()
        binding.bind_cpu_input("input_ids", np.ascontiguousarray(tokens))
        binding.bind_cpu_input("attention_mask", mask)
        for name, value in zip(self._inputs, past, strict=True):
            binding.bind_ortvalue_input(name, value)
        binding.bind_output("logits", "cpu")
        for name in self._outputs:
            binding.bind_output(name, self._session.device, 0)
        self._session.run_bound(binding)
        logits, *present = binding.get_outputs()
        return logits.numpy()[:, -1], present

    def _ortvalue(self, array: NDArray[Any]) -> Any:
        return self._session.ort.OrtValue.ortvalue_from_numpy(array, self._session.device, 0)


def _bind_logits(binding: Any, logits: Floats) -> None:
    binding.bind_output("logits", "cpu", 0, np.float32, list(logits.shape), logits.ctypes.data)
