"""Reading tokens into a KV cache: prefill, decode steps and rollback, for both targets.

A decoder has B slots, each with a sequence of its own length that does not see the others. ``extend`` reads several
tokens into one slot; ``step`` reads one token into each of the first slots.
"""

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..engine.session import Session
from .growing import GrowingDecoder
from .in_place import InPlaceDecoder

Floats = NDArray[np.float32]
Tokens = NDArray[np.int64]


class Decoder(Protocol):
    """B slots and the tokens that each has read. Not for several threads at once.

    Where a call fails or is interrupted, the slots that it was feeding are in an unknown state: ``prefill`` them again.
    """

    @property
    def slots(self) -> int:
        """B."""
        ...

    def length(self, slot: int) -> int:
        """Return how many tokens a slot has read."""
        ...

    def longest(self, slot: int) -> int:
        """Return the most tokens that a slot has had, for which memory is taken. Any thread may ask."""
        ...

    def prefill(self, slot: int, tokens: Tokens, part: bool = False) -> Floats:
        """Clear a slot and read int64 [S] into it; return logits [V] of the last position, valid until the next call.

        Args:
            part: the tokens are a part of a long prompt (``prefill.LONG_SEQUENCE``), ``LEAST_PART`` or more, and are
                to have the numbers that they have where it is read in one pass.

        Raises:
            PromptError: there is not enough memory.
        """
        ...

    def extend(self, slot: int, tokens: Tokens, keep: int = 1, part: bool = False) -> Floats:
        """Read int64 [S] after what a slot has read; return logits [keep, V] of the last positions.

        ``part`` as in ``prefill``.

        The logits are valid until the next call.

        Raises:
            PromptError: there is not enough memory.
        """
        ...

    def step(self, tokens: Tokens, active: NDArray[np.bool_] | None = None) -> Floats:
        """Read one token into each of the first n slots, int64 [n]; return logits [n, V], valid until the next call.

        Slots that are not ``active`` have ended: they keep their length, but what they have read may be overwritten,
        and their logits have no meaning.

        Raises:
            PromptError: there is not enough memory.
        """
        ...

    def rollback(self, slot: int, length: int) -> int:
        """Remove all but the first ``length`` tokens from a slot; return how many are left.

        That is ``length``, or 0 where a sliding layer no longer has keys and values that the next token needs.
        """
        ...

    def can_return(self, read: int, length: int) -> bool:
        """Return whether a slot that has read so many tokens can be rolled back to ``length``."""
        ...

    def reversible(self, slot: int) -> int:
        """Return how many tokens can be read such that a rollback to any length after the first of them is exact."""
        ...

    def copy(self, source: int, target: int) -> None:
        """Make slot ``target`` a copy of slot ``source``."""
        ...

    def saved(self, slot: int) -> list[NDArray[Any]]:
        """Return the keys and values of a slot, [K, P, E] of each layer, on the CPU alone.

        They may be views of the cache, which are valid until the slot is written to.
        """
        ...

    def restore(self, slot: int, values: list[NDArray[Any]], length: int) -> None:
        """Let a slot have what ``saved`` returned for one that had read ``length`` tokens.

        Raises:
            PromptError: there is not enough memory.
            ValueError: the values have other shapes or types than those of this decoder.
        """
        ...


def open_decoder(session: Session, slots: int, longest_prompt: int, max_length: int) -> Decoder:
    """Return a decoder for the artifact's target, with room for its KV cache.

    Args:
        slots: B.
        longest_prompt: tokens of the longest prompt.
        max_length: the most positions that any slot can need.

    Raises:
        PromptError: there is not enough memory for the KV cache.
    """
    if session.manifest.target == "standard":
        return GrowingDecoder(session, slots)
    return InPlaceDecoder(session, slots, longest_prompt, max_length)
