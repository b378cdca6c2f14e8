"""Several tokens from one pass: a proposer guesses the next ones, and the model reads them all at once.

The pass gives the logits behind every guess. The sampler chooses from them one after the other, with its own random
numbers, as it would have without guesses; the first choice that is not the guess ends the round, and what was read
beyond it is forgotten. So the tokens are those of plain decoding, and only the number of passes differs (Leviathan et
al. 2023; proposals from the text itself: Saxena 2023, "prompt lookup decoding").
"""

from collections.abc import Iterator
from typing import Protocol

import numpy as np

from ..decoding.decoder import Decoder
from ..sequence.sampler import Floats
from ..sequence.sequence import Row

# A pass over S tokens costs, in decode steps of an int4 0.5B on two cores: 1.0 for 2, 1.5 for 4, 2.4 for 8, 4.2 for 16,
# and behind 2,000 tokens 1.5 for 2. So there are more guesses while they come true, one where they did not, and after
# misses in a row none for some tokens.
FIRST_GUESSES = 3
MOST_GUESSES = 15
LONGEST_PAUSE = 15

LONG, SHORT = 5, 3


class Proposer(Protocol):
    """Guesses what comes next."""

    def propose(self, history: list[int], count: int) -> list[int]:
        """At most ``count`` tokens that may follow; ``history`` is the list of the call before, longer by some."""


class PromptLookup:
    """Proposes what followed the last time that the text read like this: its last 5 tokens, or its last 3."""

    def __init__(self) -> None:
        self._followed: dict[tuple[int, ...], int] = {}  # from a run of tokens to the place behind its last occurrence
        self._read = 0

    def propose(self, history: list[int], count: int) -> list[int]:
        # The run that ends the history is not entered yet: it would find itself.
        for end in range(max(self._read, SHORT), len(history)):
            for length in (LONG, SHORT):
                if length <= end:
                    self._followed[tuple(history[end - length : end])] = end
        self._read = max(self._read, len(history))
        for length in (LONG, SHORT):
            place = self._followed.get(tuple(history[-length:]))
            if place is not None:
                return history[place : place + count]
        return []


class Speculation:
    """A proposer, and how many guesses are worth making: more while all come true, fewer or none where they do not.

    Only what came true decides, not the clock, so that a seed gives the same passes every time.
    """

    def __init__(self, proposer: Proposer) -> None:
        self._proposer = proposer
        self._count = FIRST_GUESSES
        self._misses = 0
        self._pause = 0
        self.proposed = 0
        self.accepted = 0

    def guesses(self, history: list[int], most: int) -> list[int]:
        count = min(self._count, most)
        if self._pause:
            self._pause -= 1
            count = 0
        return self._proposer.propose(history, count) if count > 0 else []

    def heard(self, proposed: int, accepted: int) -> None:
        """How many guesses there were, and how many came true."""
        self.proposed += proposed
        self.accepted += accepted
        self._count = min(2 * self._count + 1, MOST_GUESSES) if accepted == proposed else max(1, accepted)
        self._misses = 0 if accepted else self._misses + 1
        self._pause = min(max(0, 2 ** (self._misses - 1) - 1), LONGEST_PAUSE)


def decode(decoder: Decoder, row: Row, logits: Floats, speculation: Speculation | None = None) -> Iterator[str]:
    """Generate with a decoder of one row, whose logits [V] choose the first token; yields pieces of the text.

    Whenever a piece is yielded, the decoder has read the prompt and all generated tokens but the last, or, after a
    round of guesses, some more of them.
    """
    yield row.accept(logits)
    history = row.prompt.tolist() + row.token_ids if speculation else []
    while row.finish_reason is None:
        guesses: list[int] = []
        if speculation is not None:
            history.extend(row.token_ids[len(history) - row.prompt.size :])
            guesses = speculation.guesses(history, min(row.limit - len(row.token_ids), decoder.reach(0)) - 1)
        if speculation is None or not guesses:
            yield row.accept(decoder.step(np.array(row.token_ids[-1:]))[0])
        else:
            pieces, accepted = _round(decoder, row, guesses)
            speculation.heard(len(guesses), accepted)
            yield from pieces


def _round(decoder: Decoder, row: Row, guesses: list[int]) -> tuple[list[str], int]:
    """One pass over the last token and the guesses: the pieces of text, and how many guesses came true."""
    before = decoder.length(0)
    logits = decoder.extend(0, np.array([row.token_ids[-1], *guesses]), keep=1 + len(guesses))
    pieces = []
    accepted = 0
    for place in range(1 + len(guesses)):
        pieces.append(row.accept(logits[place]))
        came_true = place < len(guesses) and row.token_ids[-1] == guesses[place]
        if row.finish_reason is not None or not came_true:
            break
        accepted += 1
    decoder.rollback(0, before + 1 + accepted)
    return pieces, accepted
