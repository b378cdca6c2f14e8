"""Tokens that are excluded or forced, always or at a position."""

from collections.abc import Iterable

import numpy as np

from .base import Floats, Tokens

LARGEST = float(np.finfo(np.float32).max)


class SuppressTokens:
    """Excludes tokens: always, below a length of the text, or at one length.

    Args:
        below: exclude them while prompt and continuation have fewer tokens.
        at: exclude them where prompt and continuation have so many tokens.
    """

    def __init__(self, ids: Iterable[int], *, below: int | None = None, at: int | None = None) -> None:
        self._ids = np.fromiter(ids, dtype=np.int64)
        self._below = below
        self._at = at

    def __call__(self, tokens: Tokens, logits: Floats) -> Floats:
        if (self._below is None or tokens.size < self._below) and (self._at is None or tokens.size == self._at):
            logits[self._ids] = -np.inf
        return logits


class ForceTokens:
    """Excludes all but some tokens where prompt and continuation have ``at`` tokens."""

    def __init__(self, ids: Iterable[int], at: int) -> None:
        self._ids = np.fromiter(ids, dtype=np.int64)
        self._at = at

    def __call__(self, tokens: Tokens, logits: Floats) -> Floats:
        if tokens.size == self._at:
            logits[:] = -np.inf
            logits[self._ids] = 0
        return logits


class LengthDecay:
    """Raises the logits of the end tokens, more with each token after ``start`` (``exponential_decay_length_penalty``).

    Each gains ``abs(logit) * (factor ** (tokens.size - start) - 1)``.
    """

    def __init__(self, start: int, factor: float, end_tokens: Iterable[int]) -> None:
        self._start = start
        self._factor = factor
        self._ids = np.fromiter(end_tokens, dtype=np.int64)

    def __call__(self, tokens: Tokens, logits: Floats) -> Floats:
        if tokens.size > self._start:
            scores = logits[self._ids]
            with np.errstate(over="ignore"):
                growth = np.float64(self._factor) ** (tokens.size - self._start) - 1
                gain = np.abs(scores) * min(growth, LARGEST)
            logits[self._ids] = np.where(np.isfinite(scores), np.minimum(scores + gain, LARGEST), scores)
        return logits
