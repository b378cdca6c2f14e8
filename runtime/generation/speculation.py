"""Speculative decoding: a proposer guesses the next tokens, and the model checks all of them in one pass.

The pass computes the logits after every guess. The sampler chooses from them in order, with the random numbers that it
would have used without guesses. The first choice that differs from its guess ends the round, and the cache is rolled
back to it. So the tokens are those of plain decoding, and only the number of passes differs (Leviathan et al. 2023;
proposals from the text itself: Saxena 2023, "prompt lookup decoding").
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

import numpy as np

from ..decoding.decoder import Decoder
from ..engine.session import Device, Session
from ..sequence.request import Request
from ..sequence.sampler import Floats
from ..sequence.sequence import ActiveSequence

# The number of guesses rises while all are accepted, falls to the number that was accepted, and after several rounds
# without any is 0 for some tokens.
FIRST_GUESSES = 3
LONGEST_PAUSE = 15

CHEAP_PASS: Mapping[Device, Mapping[str, int]] = {"cpu": {}, "cuda": {"int8": 5}}
"""The most tokens of a pass by device and precision of the weights, where a longer one costs much more; else any.

On the CPU a pass over S tokens costs, in decode steps of an int4 0.5B on two cores: 1.0 for 2, 1.5 for 4, 2.4 for 8,
4.2 for 16, and after 2,000 tokens 1.5 for 2. On CUDA weights of 8 bits are multiplied as they are stored with at most 5
tokens (ONNX Runtime 1.30, ``TryMatMul8Bits`` in matmul_8bits.cu); with more, all of them are dequantized first. Those
of 4 bits take 16 (``kSmallMMax`` in matmul_4bits.cu). What is said of CUDA was read in the source and not measured.
"""
LONGEST_PASS = 16

LONG, SHORT = 5, 3


class Proposer(Protocol):
    """Guesses the next tokens."""

    def propose(self, history: list[int], count: int) -> list[int]:
        """Return at most ``count`` tokens that may follow ``history``: the list of the last call, with new tokens."""
        ...


class PromptLookup:
    """Proposes what followed the last occurrence of the last 5 tokens, or of the last 3."""

    def __init__(self) -> None:
        self._followed: dict[tuple[int, ...], int] = {}  # from an n-gram to the position after its last occurrence
        self._read = 0

    def propose(self, history: list[int], count: int) -> list[int]:
        # The n-gram at the end of the history is not entered yet: it would find itself.
        for end in range(max(self._read, SHORT), len(history)):
            for length in (LONG, SHORT):
                if length <= end:
                    self._followed[tuple(history[end - length : end])] = end
        self._read = max(self._read, len(history))
        for length in (LONG, SHORT):
            position = self._followed.get(tuple(history[-length:]))
            if position is not None:
                return history[position : position + count]
        return []


def most_guesses(session: Session) -> int:
    """Return how many guesses a pass may check: with the token before them, as many tokens as are cheap."""
    cheap = CHEAP_PASS[session.device]
    stored = {entry.precision for entry in session.manifest.tensors.values()}
    return min([LONGEST_PASS, *(cheap[precision] for precision in stored & cheap.keys())]) - 1


class Speculation:
    """A proposer, and the number of guesses that are worth their cost.

    The number depends only on how many were accepted, not on time, so a seed gives the same passes every time.

    Args:
        most: the most guesses of a pass.
    """

    def __init__(self, proposer: Proposer, most: int) -> None:
        self._proposer = proposer
        self._most = most
        self._count = min(FIRST_GUESSES, most)
        self._misses = 0
        self._pause = 0
        self.proposed = 0
        self.accepted = 0

    def guesses(self, history: list[int], most: int) -> list[int]:
        """Return the guesses of the next round, at most ``most``."""
        count = min(self._count, most)
        if self._pause:
            self._pause -= 1
            count = 0
        return self._proposer.propose(history, count) if count > 0 else []

    def update(self, proposed: int, accepted: int) -> None:
        """Adapt the number of guesses to a round in which ``accepted`` of ``proposed`` were right."""
        self.proposed += proposed
        self.accepted += accepted
        self._count = min(2 * self._count + 1, self._most) if accepted == proposed else max(1, accepted)
        self._misses = 0 if accepted else self._misses + 1
        self._pause = min(max(0, 2 ** (self._misses - 1) - 1), LONGEST_PAUSE)


SpeculationFor = Callable[[Request, int], Speculation | None]
"""Returns the speculation of a request whose prompt has so many tokens; None for none."""


class Rounds:
    """The rounds of one sequence in slot 0 of a decoder. Between two rounds it may take part in steps of a batch.

    Args:
        speculation: None for rounds without guesses.
    """

    def __init__(self, sequence: ActiveSequence, speculation: Speculation | None) -> None:
        self._sequence = sequence
        self._speculation = speculation
        self._history: list[int] = []

    def next(self, decoder: Decoder) -> list[str]:
        """Read the last token, and guesses of the next ones where there are any; return the chunks of text.

        Afterwards the decoder has read all tokens but the last, or, where guesses ended the sequence, some more.
        """
        sequence, speculation = self._sequence, self._speculation
        guesses: list[int] = []
        if speculation is not None:
            history = self._history or sequence.prompt.tolist()
            history.extend(sequence.token_ids[len(history) - sequence.prompt.size :])
            self._history = history
            room = min(sequence.limit - len(sequence.token_ids), decoder.reversible(0))
            guesses = speculation.guesses(history, room - 1)
        if speculation is None or not guesses:
            return [sequence.accept(decoder.step(np.array(sequence.token_ids[-1:]))[0])]
        chunks, accepted = _round(decoder, sequence, guesses)
        speculation.update(len(guesses), accepted)
        return chunks


def decode(
    decoder: Decoder, sequence: ActiveSequence, logits: Floats, speculation: Speculation | None = None
) -> Iterator[str]:
    """Generate one sequence in slot 0 of a decoder; yield its text in chunks, some of them empty.

    At each chunk the decoder has read the prompt and all generated tokens but the last, or, after a round of guesses,
    some more of them.

    Args:
        logits: those of the prompt's last position, [V].
    """
    yield sequence.accept(logits)
    rounds = Rounds(sequence, speculation)
    while sequence.finish_reason is None:
        yield from rounds.next(decoder)


def _round(decoder: Decoder, sequence: ActiveSequence, guesses: list[int]) -> tuple[list[str], int]:
    """Read the last token and the guesses in one pass; return the chunks of text, and how many guesses were right."""
    before = decoder.length(0)
    logits = decoder.extend(0, np.array([sequence.token_ids[-1], *guesses]), keep=1 + len(guesses))
    chunks = []
    accepted = 0
    for index in range(1 + len(guesses)):
        chunks.append(sequence.accept(logits[index]))
        right = index < len(guesses) and sequence.token_ids[-1] == guesses[index]
        if sequence.finish_reason is not None or not right:
            break
        accepted += 1
    decoder.rollback(0, before + 1 + accepted)
    return chunks, accepted
