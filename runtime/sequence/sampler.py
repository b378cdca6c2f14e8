"""From processed logits to a token: the greedy choice, or a draw after temperature and filters, in transformers' order.

Temperature, top-h, top-k, top-p, min-p, typical-p, epsilon and eta cutoff, then a draw. Top-k keeps ties with the k-th
logit. The vocabulary is never sorted as a whole: top-k partitions its candidates, and top-p sorts only the tokens that
can be in the nucleus.
"""

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from ...artifact import CacheDtype
from ...errors import ArtifactError
from ...files.generation_settings import read_setting
from ..numerics import largest
from . import filters

Floats = NDArray[np.float32]
Indices = NDArray[np.int64]
SMALLEST = np.finfo(np.float32).tiny


@dataclass(frozen=True)
class SamplingSettings:
    """The settings of sampling. Temperature 0 is greedy; 0 switches top_k, min_p and the cutoffs off, 1 the others.

    Raises:
        UsageError: a value out of its range.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    top_h: float | None = None
    typical_p: float = 1.0
    epsilon_cutoff: float = 0.0
    eta_cutoff: float = 0.0

    def __post_init__(self) -> None:
        for field in fields(self):
            if getattr(self, field.name) is not None:
                read_setting(field.name, getattr(self, field.name))


class Sampler:
    """Chooses the tokens of one sequence, with a random stream of its own.

    Args:
        seed: a seed of ``numpy.random.default_rng``.
        activations: the element type of the model's activations, for the error where logits are not finite.
    """

    def __init__(self, settings: SamplingSettings, seed: object = None, activations: CacheDtype = "float32") -> None:
        self._settings = settings
        self._activations: CacheDtype = activations
        self._random = np.random.default_rng(seed)  # type: ignore[arg-type]

    def choose(self, logits: Floats) -> int:
        """Return the next token for float32 logits [V], which are not changed."""
        if self._settings.temperature == 0:
            token = int(logits.argmax())
            check_finite(logits[token], self._activations)
        else:
            check_finite(logits.max(), self._activations)
            tokens, weights = distribution(logits, self._settings)
            token = int(tokens[draw(weights, self._random.random())])
        return token

    def skip(self) -> None:
        """Draw as ``choose`` does, for a token that is the only one to choose."""
        if self._settings.temperature != 0:
            self._random.random()


def distribution(logits: Floats, settings: SamplingSettings) -> tuple[Indices, NDArray[np.float64]]:
    """Return the tokens that may be drawn, and their weights (not normalized; the largest is 1)."""
    top = logits.max()
    tokens = np.arange(logits.size)
    if 0 < settings.top_k < logits.size and settings.top_h is None:
        # A positive temperature does not change the order, so top-k can be applied first.
        tokens = largest(logits, settings.top_k)
    with np.errstate(over="ignore"):  # a tiny temperature takes all but the largest to minus infinity
        scores = (logits[tokens] - top) / max(np.float32(settings.temperature), SMALLEST)
    if settings.top_h is not None:
        kept = filters.top_entropy(scores, settings.top_h)[: settings.top_k or None]
        tokens, scores = tokens[kept], scores[kept]
    if settings.top_p < 1.0:
        kept = filters.nucleus(scores, settings.top_p)
        tokens, scores = tokens[kept], scores[kept]
    if settings.min_p > 0.0:
        kept = filters.least_likely(scores, settings.min_p)
        tokens, scores = tokens[kept], scores[kept]
    if settings.typical_p < 1.0:
        kept = filters.typical(scores, settings.typical_p)  # may exclude the most likely token
        tokens, scores = tokens[kept], scores[kept] - scores[kept].max()
    if 0.0 < settings.epsilon_cutoff < 1.0:
        kept = filters.epsilon(scores, settings.epsilon_cutoff)
        tokens, scores = tokens[kept], scores[kept]
    if 0.0 < settings.eta_cutoff < 1.0:
        kept = filters.eta(scores, settings.eta_cutoff)
        tokens, scores = tokens[kept], scores[kept]
    return tokens, np.exp(scores, dtype=np.float64)


def draw(weights: NDArray[np.float64], uniform: float) -> int:
    """Return the position that a uniform number in [0, 1) selects by the weights; never one of weight 0."""
    edges = np.cumsum(weights)
    # The product of the largest number below 1 and the last edge, rounded, is still below that edge.
    return int(np.searchsorted(edges, uniform * edges[-1], side="right"))


def check_finite(logit: np.float32, activations: CacheDtype = "float32") -> None:
    """Check that the largest of a model's logits is a finite number.

    Args:
        activations: the element type of the model's activations.

    Raises:
        ArtifactError: it is not.
    """
    if not np.isfinite(logit):
        cause = "the checkpoint's weights are damaged"
        if activations != "float32":
            cause = "they overflow in half precision: use --precision fp32, or --activations fp32 with int4 and int8"
        raise ArtifactError(
            "the model's logits are not finite numbers; check the artifact with `intaglio verify`, "
            f"and if its files are whole, {cause}"
        )
