"""Prompts that begin alike are read once: which slots hold the beginning of a prompt, and how much of it may be copied.

What is copied has the bits that reading it again would give. So only the prompt of a slot counts, not what was
generated after it, only long prompts share (``decoding/prefill.py``), and ``LEAST_PART`` tokens are always read. Where
layers slide, only what a slot can be rolled back to is taken: a prompt may go on where another ends, or differ from it
within its last positions.
"""

from collections import OrderedDict
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ..decoding.decoder import Decoder
from ..kernels import LEAST_PART, LONG_SEQUENCE
from .prompt_files import PromptFiles, begins

Tokens = NDArray[np.int64]

WORTH_A_COPY, WORTH_KEEPING = 32, 128  # tokens that reading again takes longer than copying, and a slot is worth


class PrefixCache:
    """The slots of a decoder from ``first`` on, which keep prompts; the least recently used one is given up first.

    Args:
        files: prompts on disk as well; None for none.
        step: that of ``prefill_step``: beginnings are taken up to its multiples.
    """

    def __init__(self, decoder: Decoder, first: int, files: PromptFiles | None = None, step: int | None = None) -> None:
        self._decoder = decoder
        self._files = files
        self._step = step or 1
        self._free = list(range(first, decoder.slots))
        self._kept: OrderedDict[int, Tokens] = OrderedDict()  # the slots' prompts, least recently used first
        self._written: set[int] = set()  # slots that are being written to a file: they must stay as they are

    def __len__(self) -> int:
        return len(self._kept)

    def restore(self, slot: int, prompt: Tokens, running: list[tuple[int, Tokens]]) -> int:
        """Let a slot have the longest beginning of a prompt that is known; return its length, 0 for none.

        Args:
            running: the slots in use, with their prompts, all read.
        """
        held = self._decoder.length
        in_memory = max(
            ((self._shared(prompt, other, held(kept)), kept) for kept, other in (*running, *self._kept.items())),
            default=(0, 0),
        )
        if self._files is not None:
            on_disk = [(self._shared(prompt, one.tokens, one.tokens.size), one) for one in self._files.prompts]
            length, stored = max(on_disk, key=lambda one: one[0], default=(0, None))
            worth = length >= in_memory[0] + WORTH_A_COPY
            if stored is not None and worth and self._files.restore(self._decoder, slot, stored):
                return self._decoder.rollback(slot, length)
        length, source = in_memory
        if length < WORTH_A_COPY:
            return 0
        if source in self._kept:
            self._kept.move_to_end(source)
        self._decoder.copy(source, slot)
        return self._decoder.rollback(slot, length)

    def keep(self, slot: int, prompt: Tokens) -> None:
        """Keep a copy of the prompt that a slot holds, unless it is too short or another one begins with it.

        Nor is it kept where the slot has read so much after it that it cannot be rolled back.
        """
        if prompt.size < WORTH_KEEPING or not (self._free or self._kept):
            return
        held, size = self._decoder.length, int(prompt.size)
        if held(slot) < size or not self._decoder.can_return(held(slot), size):
            return
        for kept, other in self._kept.items():
            if begins(other, prompt) and self._decoder.can_return(held(kept), size):
                self._kept.move_to_end(kept)
                return
        place = self._place(prompt)
        if place is None:
            return
        self._kept.pop(place, None)
        self._decoder.copy(slot, place)
        self._decoder.rollback(place, size)
        self._kept[place] = prompt
        if self._files is not None:
            self._written.add(place)
            self._files.save(self._decoder, place, prompt, partial(self._written.discard, place))

    def close(self) -> None:
        """Wait until the prompts are on disk."""
        if self._files is not None:
            self._files.close()

    def _shared(self, prompt: Tokens, other: Tokens, held: int) -> int:
        """Return how many tokens may be taken from a slot that has read ``held`` tokens, those of ``other`` first."""
        length = shared(prompt, other) // self._step * self._step
        return length if self._decoder.can_return(held, length) else 0

    def _place(self, prompt: Tokens) -> int | None:
        """Return a slot for a prompt: one with the beginning of it, a free one, or the least recently used one."""
        may_change = [kept for kept in self._kept if kept not in self._written]
        beginning = [kept for kept in may_change if begins(prompt, self._kept[kept])]
        if beginning:
            return beginning[0]
        return self._free.pop() if self._free else next(iter(may_change), None)


def shared(prompt: Tokens, other: Tokens) -> int:
    """Return how many tokens of a prompt need not be read where ``other`` has been."""
    if min(prompt.size, other.size) < LONG_SEQUENCE:
        return 0
    most = min(prompt.size - LEAST_PART, other.size)
    differing = np.flatnonzero(prompt[:most] != other[:most])
    return int(differing[0]) if differing.size else int(most)
