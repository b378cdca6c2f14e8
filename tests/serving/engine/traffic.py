"""Requests of mixed lengths with the answers that they get alone, and the comparison of both."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from intaglio.artifact import FLOAT_PRECISIONS
from intaglio.runtime import Generation, TextGenerator, TokenLogprob

LOGPROBS = 2


@dataclass(frozen=True)
class Ask:
    """A request, and what ``TextGenerator.generate`` makes of it without guesses.

    ``leaves_after``: how many events the client reads before it leaves; None where it stays.
    """

    prompt: tuple[int, ...]
    new_tokens: int
    streamed: bool
    leaves_after: int | None
    alone: Generation


def asks(lm: TextGenerator, count: int, seed: int) -> list[Ask]:
    """Return requests; two in five begin with the same 150 tokens, one in five is left."""
    random = np.random.default_rng(seed)
    vocabulary = lm.manifest.model.vocab_size - 100
    system = random.integers(3, vocabulary, 150).tolist()
    made: list[Ask] = []
    for number in range(count):
        size = int(random.choice([random.integers(1, 20), random.integers(20, 260)]))
        begin = system if random.random() < 0.4 else []
        prompt = (*begin, *random.integers(3, vocabulary, size).tolist())
        if number % 10 == 9:
            prompt = made[number - 5].prompt  # once more, or read at the same time
        new_tokens = int(random.integers(1, 40))
        leaves_after = int(random.integers(0, 8)) if random.random() < 0.2 else None
        alone = lm.generate(
            list(prompt), max_new_tokens=new_tokens, temperature=0.0, logprobs=LOGPROBS, speculate=False
        )
        made.append(Ask(prompt, new_tokens, bool(random.random() < 0.5), leaves_after, alone))
    return made


def tolerance(lm: TextGenerator) -> float:
    """Return how far log-probabilities may be from those of a request alone: not by a bit with quantized weights.

    With float32 a token's sums are in another order where another number of tokens is read with it.
    """
    return 1e-4 if lm.manifest.precision in FLOAT_PRECISIONS else 0.0


def farthest(found: Sequence[TokenLogprob] | None, alone: Sequence[TokenLogprob] | None) -> float:
    """Return the largest difference between two lists of log-probabilities of the same tokens."""
    assert found is not None
    assert alone is not None
    assert [entry.token_id for entry in found] == [entry.token_id for entry in alone]
    return max((abs(a.logprob - b.logprob) for a, b in zip(found, alone, strict=True)), default=0.0)
