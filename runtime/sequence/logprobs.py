"""Log-probabilities: of the token that was generated, and of the likeliest ones in its place.

They are the model's own: taken from its logits before the repetition penalty, temperature, filters and constraints, so
that they say what the model thought, whatever was asked of the sampling.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...errors import UsageError
from ..text.tokenizer import Tokenizer
from .sampler import Floats, check_number

RUN = 64


@dataclass(frozen=True)
class Candidate:
    """A token that might have come: its id, its text, and the natural logarithm of its probability."""

    token_id: int
    text: str
    logprob: float


@dataclass(frozen=True)
class TokenLogprob:
    """A generated token, and ``top``: the likeliest tokens in its place, the best first.

    ``text`` is the token's own: a part of a character is U+FFFD, a special token its name.
    """

    token_id: int
    text: str
    logprob: float
    top: tuple[Candidate, ...]


def token_logprob(logits: Floats, token: int, count: int, tokenizer: Tokenizer | None) -> TokenLogprob:
    """What the logits [V] say about ``token``, and about the ``count`` likeliest."""
    norm = log_normaliser(logits)
    top = tuple(
        Candidate(index, token_text(tokenizer, index), float(logits[index]) - norm)
        for index in likeliest(logits, count)
    )
    return TokenLogprob(token, token_text(tokenizer, token), float(logits[token]) - norm, top)


def likeliest(logits: Floats, count: int) -> list[int]:
    """The positions of the ``count`` largest logits [V], the largest first; of equals the first one first."""
    if count == 0:
        return []
    # No full sort: the best of each run of tokens are partitioned, and only what reaches the last of them is put in
    # order. Among all tokens there are at least as many that reach it.
    runs = logits[: logits.size // RUN * RUN].reshape(-1, RUN).max(axis=1)
    pool = runs if runs.size >= count else logits
    threshold = np.partition(pool, pool.size - count)[pool.size - count]
    reached = np.flatnonzero(logits >= threshold)
    order: list[int] = reached[np.argsort(-logits[reached], kind="stable")][:count].tolist()
    return order


def log_normaliser(logits: Floats) -> float:
    """log(sum(exp(logits))) of float32 logits [V], exact to float32's rounding.

    Raises:
        ArtifactError: the logits are no finite numbers.
    """
    top = logits.max()
    check_number(top)
    weights: NDArray[np.float32] = np.exp(logits - top)
    return float(top) + float(np.log(weights.sum(dtype=np.float64)))


def token_text(tokenizer: Tokenizer | None, token: int) -> str:
    """A token's text by itself; empty without a tokenizer, and for an id that it does not know."""
    return tokenizer.backend.decode([token], skip_special_tokens=False) if tokenizer else ""


def check_count(logprobs: int | None, vocab_size: int) -> int | None:
    """How many likeliest tokens are asked for; None for no log-probabilities at all.

    Raises:
        UsageError: fewer than none, or more than there are tokens.
    """
    if logprobs is not None and not 0 <= logprobs <= vocab_size:
        raise UsageError(f"logprobs must be between 0 and the vocabulary's {vocab_size:,}, not {logprobs:,}")
    return logprobs
