"""Rows of text that a model reads: prefill, decode steps, going back; for both targets.

A decoder holds the sequences of B rows, which do not see each other and have lengths of their own. ``extend`` lets one
row read more tokens; ``step`` feeds one token to each of the first rows together.
"""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..engine.session import Session
from .growing import ConcatDecoder
from .in_place import SharedDecoder

Floats = NDArray[np.float32]
Tokens = NDArray[np.int64]


class Decoder(Protocol):
    """B rows and what they have read so far. Not for several threads at once.

    Where a call fails, or is interrupted, what it was feeding is in an unknown state: ``prefill`` it anew.
    """

    @property
    def rows(self) -> int:
        """B."""

    def length(self, row: int) -> int:
        """Tokens that a row has read."""

    def prefill(self, row: int, tokens: Tokens) -> Floats:
        """Forget a row and let it read int64 [S]; logits [V] of the last position, valid until the next call."""

    def extend(self, row: int, tokens: Tokens, keep: int = 1) -> Floats:
        """Let a row read int64 [S] more; logits [keep, V] of the last positions, valid until the next call."""

    def step(self, tokens: Tokens, active: NDArray[np.bool_] | None = None) -> Floats:
        """Let the first n rows read one token each, int64 [n]; logits [n, V], valid until the next call.

        Rows that are not ``active`` stand still, and their logits mean nothing.
        """

    def rollback(self, row: int, length: int) -> int:
        """Forget all but the first ``length`` tokens; returns how many are left.

        That is ``length``, or 0 where the row cannot be brought back to where it was: a sliding layer has dropped what
        it would need again.
        """

    def reach(self, row: int) -> int:
        """How many tokens can be read so that a rollback to any place behind the first of them is exact."""

    def move(self, source: int, target: int) -> None:
        """Let a row be what another one is."""


def open_decoder(session: Session, rows: int, longest: int, limit: int) -> Decoder:
    """A decoder for the artifact's target.

    Args:
        rows: B; at most ``rows_together(session)``.
        longest: tokens of the longest prompt.
        limit: the most positions that any row can come to need.

    Raises:
        PromptError: there is not enough memory for the KV cache.
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
