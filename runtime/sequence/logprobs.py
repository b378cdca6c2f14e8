"""Log-probabilities of the generated token and of the most likely tokens at its position.

They are the model's own: computed from its logits before repetition penalty, temperature, filters and constraints.
"""

from dataclasses import dataclass

import numpy as np

from ...artifact import CacheDtype
from ...errors import UsageError
from ..numerics import largest, log_sum_exp
from ..text.tokenizer import Tokenizer
from .sampler import Floats, check_finite


@dataclass(frozen=True)
class Candidate:
    """A possible token: its id, its text, and the natural logarithm of its probability."""

    token_id: int
    text: str
    logprob: float


@dataclass(frozen=True)
class TokenLogprob:
    """A generated token, and ``top``: the most likely tokens at its position, in descending order.

    ``text`` is the token's own: U+FFFD for a part of a character, the name of a special token.
    """

    token_id: int
    text: str
    logprob: float
    top: tuple[Candidate, ...]


def token_logprob(logits: Floats, token: int, count: int, tokenizer: Tokenizer | None) -> TokenLogprob:
    """Return the log-probabilities of ``token`` and of the ``count`` most likely tokens, from logits [V]."""
    normalizer = log_normalizer(logits)
    top = candidates(logits, normalizer, count, tokenizer)
    return TokenLogprob(token, token_text(tokenizer, token), float(logits[token]) - normalizer, top)


def candidates(logits: Floats, normalizer: float, count: int, tokenizer: Tokenizer | None) -> tuple[Candidate, ...]:
    """Return the ``count`` most likely tokens of logits [V], in descending order."""
    return tuple(
        Candidate(index, token_text(tokenizer, index), float(logits[index]) - normalizer)
        for index in likeliest(logits, count)
    )


def likeliest(logits: Floats, count: int) -> list[int]:
    """Return the positions of the ``count`` largest logits [V] in descending order, ties by position."""
    if count == 0:
        return []
    found = largest(logits, count)
    order: list[int] = found[np.argsort(-logits[found], kind="stable")][:count].tolist()
    return order


def log_normalizer(logits: Floats, activations: CacheDtype = "float32") -> float:
    """Return log(sum(exp(logits))) of float32 logits [V], exact to float32's rounding.

    Args:
        activations: the element type of the model's activations, for the error.

    Raises:
        ArtifactError: the logits are not finite numbers.
    """
    check_finite(logits.max(), activations)
    return log_sum_exp(logits)


def token_text(tokenizer: Tokenizer | None, token: int) -> str:
    """Return the text of a single token; empty without a tokenizer, and for an id that it does not know."""
    return tokenizer.token_text(token) if tokenizer else ""


def check_count(logprobs: int | None, vocab_size: int) -> int | None:
    """Return ``logprobs``, the number of most likely tokens to list, or None for no log-probabilities.

    Raises:
        UsageError: a negative number, or more than the vocabulary has tokens.
    """
    if logprobs is not None and not 0 <= logprobs <= vocab_size:
        raise UsageError(f"logprobs must be between 0 and the vocabulary's {vocab_size:,}, not {logprobs:,}")
    return logprobs
