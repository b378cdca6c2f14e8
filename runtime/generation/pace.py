"""How many tokens of a long prompt a step reads, so that the requests that are decoded do not wait for long.

Reading a prompt while others are decoded makes their next token later by the time that the chunk takes. That time grows
with what has been read before (attention), and depends on the processor and the model, so it is measured. The results
do not depend on the chunks (``decoding/prefill.py``).
"""

from ..kernels import LEAST_PART

LONG_PROMPT = 512
"""Tokens of a prompt from which on its chunks are bounded; a shorter one is read after a few steps in any case."""

SLOWDOWN = 2.0
"""How many times as long as decoding alone a step may take by reading a long prompt."""

MEMORY = 0.8  # of the average of times: how much a new time leaves of it
ROOM = 0.7  # of the allowed time, below which a chunk may grow


class Pace:
    """The size of the chunks of long prompts, adapted to the times of the last steps.

    Args:
        most: tokens of a chunk where time does not matter.
    """

    def __init__(self, most: int) -> None:
        self._most = max(most, LEAST_PART)
        self._size = LEAST_PART  # until a chunk has shown that there is time for more
        self._decoding: float | None = None

    def size(self, prompt: int) -> int:
        """Return how many tokens of a prompt of so many a step reads."""
        return self._size if prompt >= LONG_PROMPT else self._most

    def decoded(self, seconds: float) -> None:
        """Take note of the time that a step has decoded for."""
        before = seconds if self._decoding is None else self._decoding
        self._decoding = MEMORY * before + (1 - MEMORY) * seconds

    def read(self, prompt: int, tokens: int, seconds: float) -> None:
        """Take note of the time that a chunk of a prompt took, beside requests that are decoded."""
        if self._decoding is None or prompt < LONG_PROMPT:
            return
        allowed = (SLOWDOWN - 1) * self._decoding
        if seconds > allowed:
            self._size = max(LEAST_PART, int(tokens * allowed / seconds))
        elif seconds < ROOM * allowed:
            self._size = min(self._most, self._size + LEAST_PART)
