"""Penalties on tokens that occurred (``repetition_penalty``, ``presence_penalty``, ``frequency_penalty``)."""

import numpy as np

from .base import Floats, Tokens

SMALLEST = np.finfo(np.float32).tiny
LARGEST = np.finfo(np.float32).max


class RepetitionPenalty:
    """Divides the logits of tokens of prompt and continuation by the penalty, or multiplies them where negative.

    N. S. Keskar et al., "CTRL", 2019; the negative case as in transformers. A quotient that float32 cannot express is
    its largest number, so that a tiny penalty does not look like a damaged model.
    """

    def __init__(self, penalty: float) -> None:
        self._penalty = max(np.float32(penalty), SMALLEST)

    def __call__(self, tokens: Tokens, logits: Floats) -> Floats:
        scores = logits[tokens]
        with np.errstate(over="ignore"):
            penalized = np.where(scores < 0, scores * self._penalty, scores / self._penalty)
        logits[tokens] = np.where(np.isfinite(scores), np.minimum(penalized, LARGEST), penalized)
        return logits


class OccurrencePenalty:
    """Subtracts ``presence`` from the logits of generated tokens, and ``frequency`` for each time they occurred.

    OpenAI's definition: the tokens of the prompt do not count.
    """

    def __init__(self, presence: float, frequency: float, prompt: int) -> None:
        self._presence = np.float32(presence)
        self._frequency = np.float32(frequency)
        self._prompt = prompt

    def __call__(self, tokens: Tokens, logits: Floats) -> Floats:
        generated, counts = np.unique(tokens[self._prompt :], return_counts=True)
        logits[generated] -= self._frequency * counts.astype(np.float32) + self._presence
        return logits
