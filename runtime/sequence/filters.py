"""The filters of sampling: which tokens may be drawn. Each takes scores, and returns the positions that it keeps.

The semantics are those of ``transformers.generation.logits_process``. Scores are logits divided by the temperature,
minus the largest of them; only their differences count.
"""

import numpy as np
from numpy.typing import NDArray

from ..numerics import largest, softmax

Floats = NDArray[np.float32]
Indices = NDArray[np.int64]
FIRST_BAND = 8.0  # nats below the largest logit: the first band that is searched for the nucleus
TOP_H_TOKENS = 100  # top-h considers the 100 most likely tokens alone, as in transformers


def nucleus(scores: Floats, top_p: float) -> Indices:
    """Return the smallest set of most likely tokens whose probability reaches ``top_p``.

    The set has every score above some threshold, so only a band below the largest score is sorted. The band is widened
    until it has enough probability.
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


def least_likely(scores: Floats, min_p: float) -> Indices:
    """Keep the tokens whose probability is at least ``min_p`` times that of the most likely one."""
    kept: Indices = np.flatnonzero(np.exp(scores, dtype=np.float64) >= min_p)
    return kept


def top_entropy(scores: Floats, top_h: float) -> Indices:
    """Keep the most likely tokens while their terms of the entropy add up to at most ``top_h`` of it."""
    found = largest(scores, min(TOP_H_TOKENS, scores.size))
    found = found[np.argsort(-scores[found], kind="stable")][:TOP_H_TOKENS]
    terms = _entropy_terms(softmax(scores[found]))
    kept = np.cumsum(terms) <= top_h * terms.sum()
    kept[0] = True
    likely: Indices = found[kept]
    return likely


def typical(scores: Floats, mass: float) -> Indices:
    """Keep the tokens whose information is closest to the entropy, up to a probability of ``mass``.

    C. Meister et al., "Locally Typical Sampling", 2022.
    """
    probabilities = softmax(scores)
    with np.errstate(divide="ignore"):
        distance = np.abs(-np.log(probabilities) - _entropy_terms(probabilities).sum())
    order = np.argsort(distance, kind="stable")
    reached = int((np.cumsum(probabilities[order]) < mass).sum())
    threshold = distance[order[min(reached, scores.size - 1)]]
    return np.sort(order[(distance[order] <= threshold) | (np.arange(scores.size) == 0)])


def epsilon(scores: Floats, cutoff: float) -> Indices:
    """Keep the tokens with at least this probability, and the most likely one (J. Hewitt et al., 2022)."""
    probabilities = softmax(scores)
    kept: Indices = np.flatnonzero((probabilities >= cutoff) | (scores == scores.max()))
    return kept


def eta(scores: Floats, cutoff: float) -> Indices:
    """As ``epsilon``, with a lower bound where the entropy is high: sqrt(cutoff) * exp(-entropy), if that is less."""
    entropy = _entropy_terms(softmax(scores)).sum()
    return epsilon(scores, min(cutoff, np.sqrt(cutoff) * np.exp(-entropy)))


def _entropy_terms(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return -p log(p) for each probability, 0 for p = 0."""
    terms = np.zeros_like(probabilities)
    likely = probabilities > 0
    terms[likely] = -probabilities[likely] * np.log(probabilities[likely])
    return terms
