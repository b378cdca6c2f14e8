"""Prompts that begin alike are read once: which slots hold the beginning of a prompt, and how much of it may be copied.

What is copied has the bits that reading it again would give. So only the prompt of a slot counts, not what was
generated after it, and so many tokens are left to be read that they are read as a prompt's (``LEAST_CHUNK``). Where a
model's layers slide, only what the decoder can still roll back to is taken.
"""

from collections import OrderedDict
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..decoding.decoder import Decoder
from ..decoding.prefill import LEAST_CHUNK

Tokens = NDArray[np.int64]


class Prefix(NamedTuple):
    """The first ``length`` tokens of a prompt, which ``slot`` holds."""

    slot: int
    length: int


class PrefixCache:
    """The slots of a decoder from ``first`` on, which keep prompts; the least recently used one is given up first."""

    def __init__(self, decoder: Decoder, first: int) -> None:
        self._decoder = decoder
        self._free = list(range(first, decoder.slots))
        self._kept: OrderedDict[int, Tokens] = OrderedDict()  # the slots' prompts, least recently used first

    def __len__(self) -> int:
        return len(self._kept)

    def find(self, prompt: Tokens, running: list[tuple[int, Tokens]]) -> Prefix | None:
        """Return the longest beginning of a prompt that a slot holds; None where it is not worth a copy.

        Args:
            running: the slots in use, with their prompts, all read.
        """
        best: Prefix | None = None
        for slot, other in (*running, *self._kept.items()):
            length = shared(prompt, other)
            if best is None or length > best.length:
                best = Prefix(slot, length)
        if best is None or best.length < LEAST_CHUNK:
            return None
        if best.slot in self._kept:
            self._kept.move_to_end(best.slot)
        return best

    def keep(self, slot: int, prompt: Tokens) -> None:
        """Keep a copy of the prompt that a slot holds, unless it is too short or another one begins with it."""
        if prompt.size < 2 * LEAST_CHUNK or not (self._free or self._kept):
            return
        for kept, other in self._kept.items():
            if other.size >= prompt.size and np.array_equal(other[: prompt.size], prompt):
                self._kept.move_to_end(kept)
                return
        place = next((kept for kept, other in self._kept.items() if np.array_equal(prompt[: other.size], other)), None)
        if place is None:
            place = self._free.pop() if self._free else next(iter(self._kept))
        self._kept.pop(place, None)
        self._decoder.copy(slot, place)
        if self._decoder.rollback(place, int(prompt.size)) == prompt.size:
            self._kept[place] = prompt
        else:
            self._free.append(place)


def shared(prompt: Tokens, other: Tokens) -> int:
    """Return how many tokens of a prompt need not be read where ``other`` has been."""
    most = min(prompt.size - LEAST_CHUNK, other.size)
    if other.size < LEAST_CHUNK or most <= 0:
        return 0
    differing = np.flatnonzero(prompt[:most] != other[:most])
    return int(differing[0]) if differing.size else int(most)
