"""From logits to a token: transformers' logits processors in transformers' order, for one sequence.

Repetition penalty (over prompt and generated tokens), temperature, top-k, top-p, min-p, then a draw. The semantics are
those of ``transformers.generation.logits_process``: top-k keeps ties with the k-th logit; top-p keeps a token while
the probability of those before it is below p; min-p is relative to the most likely token that is left. The vocabulary
is never sorted as a whole: top-k partitions its candidates, and top-p sorts only the tokens that can be in the nucleus.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...errors import ArtifactError, UsageError
from ..numerics import largest

Floats = NDArray[np.float32]
Indices = NDArray[np.int64]
SMALLEST = np.finfo(np.float32).tiny
FIRST_BAND = 8.0  # nats below the largest logit: the first band that is searched for the nucleus


@dataclass(frozen=True)
class SamplingSettings:
    """The settings of sampling. Temperature 0 is greedy; top_k 0, top_p 1, min_p 0 and repetition_penalty 1 are off.

    Raises:
        UsageError: a value out of its range.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0

    def __post_init__(self) -> None:
        _require(self.temperature >= 0 and np.isfinite(self.temperature), "temperature", "0 or more", self.temperature)
        _require(self.top_k >= 0 and self.top_k == int(self.top_k), "top_k", "a whole number, 0 or more", self.top_k)
        _require(0 < self.top_p <= 1, "top_p", "above 0 and at most 1", self.top_p)
        _require(0 <= self.min_p <= 1, "min_p", "between 0 and 1", self.min_p)
        penalty = self.repetition_penalty
        _require(penalty > 0 and np.isfinite(penalty), "repetition_penalty", "above 0", penalty)


class Sampler:
    """Chooses the tokens of one sequence, with a random stream of its own.

    Args:
        prompt: the prompt's token ids, to which the repetition penalty applies as well.
        vocab_size: V.
        seed: a seed of ``numpy.random.default_rng``.
    """

    def __init__(self, settings: SamplingSettings, prompt: Iterable[int], vocab_size: int, seed: object = None) -> None:
        self._settings = settings
        self._random = np.random.default_rng(seed)  # type: ignore[arg-type]
        self._penalizes = settings.repetition_penalty != 1.0
        self._seen = np.zeros(vocab_size if self._penalizes else 0, dtype=bool)
        if self._penalizes:
            self._seen[np.fromiter(prompt, dtype=np.int64)] = True

    def choose(self, logits: Floats) -> int:
        """Return the next token for float32 logits [V], which are not changed."""
        if self._penalizes:
            logits = penalize(logits, np.flatnonzero(self._seen), self._settings.repetition_penalty)
        if self._settings.temperature == 0:
            token = int(logits.argmax())
            check_finite(logits[token])
        else:
            tokens, weights = distribution(logits, self._settings)
            token = int(tokens[draw(weights, self._random.random())])
        if self._penalizes:
            self._seen[token] = True
        return token


def penalize(logits: Floats, seen: Indices, penalty: float) -> Floats:
    """Return a copy of the logits with those of ``seen`` divided by the penalty, or multiplied where negative."""
    penalized = logits.copy()
    scores = logits[seen]
    factor = np.float32(penalty)
    penalized[seen] = np.where(scores < 0, scores * factor, scores / factor)
    return penalized


def distribution(logits: Floats, settings: SamplingSettings) -> tuple[Indices, NDArray[np.float64]]:
    """Return the tokens that may be drawn, and their weights (not normalized; the largest is 1)."""
    top = logits.max()
    check_finite(top)
    tokens = np.arange(logits.size)
    if 0 < settings.top_k < logits.size:
        # A positive temperature does not change the order, so top-k can be applied first.
        tokens = largest(logits, settings.top_k)
    with np.errstate(over="ignore"):  # a tiny temperature takes all but the largest to minus infinity
        scores = (logits[tokens] - top) / max(np.float32(settings.temperature), SMALLEST)
    if settings.top_p < 1.0:
        kept = nucleus(scores, settings.top_p)
        tokens, scores = tokens[kept], scores[kept]
    weights = np.exp(scores, dtype=np.float64)
    if settings.min_p > 0.0:
        likely = weights >= settings.min_p
        tokens, weights = tokens[likely], weights[likely]
    return tokens, weights


def nucleus(scores: Floats, top_p: float) -> Indices:
    """Return the positions of the smallest set of most likely tokens whose probability reaches ``top_p``.

    The set has every score above some threshold, so only a band below the largest score is sorted. The band is widened
    until it has enough probability.

    Args:
        scores: logits minus the largest logit.
    """
    total = np.exp(scores, dtype=np.float64).sum()
    depth = FIRST_BAND
    while True:
        band = np.flatnonzero(scores >= -depth)
        if band.size == scores.size or np.exp(scores[band], dtype=np.float64).sum() >= top_p * total:
            break
        depth = depth * 2 if depth < 1000 else np.inf
    order = band[np.argsort(-scores[band], kind="stable")]
    mass = np.cumsum(np.exp(scores[order], dtype=np.float64)) / total
    return order[: 1 + int(np.searchsorted(mass[:-1], top_p, side="left"))]


def draw(weights: NDArray[np.float64], uniform: float) -> int:
    """Return the position that a uniform number in [0, 1) selects by the weights; never one of weight 0."""
    edges = np.cumsum(weights)
    # The product of the largest number below 1 and the last edge, rounded, is still below that edge.
    return int(np.searchsorted(edges, uniform * edges[-1], side="right"))


def check_finite(logit: np.float32) -> None:
    """Check that the largest of a model's logits is a finite number.

    Raises:
        ArtifactError: it is not.
    """
    if not np.isfinite(logit):
        raise ArtifactError(
            "the model's logits are not finite numbers; check the artifact with `intaglio verify`, "
            "or export it with --precision fp32"
        )


def _require(holds: bool, name: str, wanted: str, value: float) -> None:
    if not holds:
        raise UsageError(f"{name} must be {wanted}, not {value}")
