"""Sampling against transformers' own processors, and draws against the exact distribution."""

import numpy as np
import pytest
import torch
from intaglio.errors import ArtifactError, UsageError
from intaglio.runtime.sequence.filters import nucleus
from intaglio.runtime.sequence.sampler import Sampler, SamplingSettings, distribution, draw
from transformers.generation import logits_process as theirs

VOCAB = 1000
SETTINGS = [
    SamplingSettings(1.0),
    SamplingSettings(0.7),
    SamplingSettings(3.0),
    SamplingSettings(1.0, top_k=1),
    SamplingSettings(1.0, top_k=20),
    SamplingSettings(1.0, top_k=VOCAB + 5),
    SamplingSettings(1.0, top_p=0.9),
    SamplingSettings(5.0, top_p=0.95),
    SamplingSettings(1.0, top_p=0.01),
    SamplingSettings(1.0, min_p=0.1),
    SamplingSettings(1.0, min_p=1.0),
    SamplingSettings(0.7, top_k=20, top_p=0.8),
    SamplingSettings(1.3, top_k=50, top_p=0.9, min_p=0.05),
    SamplingSettings(0.9, top_p=0.7, min_p=0.2),
    SamplingSettings(1.0, typical_p=0.2),
    SamplingSettings(0.7, typical_p=0.9),
    SamplingSettings(1.0, top_k=40, top_p=0.95, min_p=0.01, typical_p=0.5),
    SamplingSettings(1.0, epsilon_cutoff=3e-3),
    SamplingSettings(1.0, epsilon_cutoff=0.9),
    SamplingSettings(1.2, top_p=0.9, eta_cutoff=3e-3),
    SamplingSettings(1.0, eta_cutoff=0.9),
    SamplingSettings(1.0, top_h=0.4),
    SamplingSettings(1.0, top_h=0.97),
    SamplingSettings(0.8, top_h=0.9, top_k=7, typical_p=0.8, epsilon_cutoff=0.01, eta_cutoff=0.02),
]


def their_probabilities(logits: np.ndarray, settings: SamplingSettings) -> np.ndarray:
    processors = theirs.LogitsProcessorList()
    if settings.temperature != 1.0:
        processors.append(theirs.TemperatureLogitsWarper(settings.temperature))
    if settings.top_h is not None:
        processors.append(theirs.TopHLogitsWarper(settings.top_h))
    if settings.top_k:
        processors.append(theirs.TopKLogitsWarper(settings.top_k))
    if settings.top_p < 1.0:
        processors.append(theirs.TopPLogitsWarper(settings.top_p))
    if settings.min_p:
        processors.append(theirs.MinPLogitsWarper(settings.min_p))
    if settings.typical_p < 1.0:
        processors.append(theirs.TypicalLogitsWarper(settings.typical_p))
    if settings.epsilon_cutoff:
        processors.append(theirs.EpsilonLogitsWarper(settings.epsilon_cutoff))
    if settings.eta_cutoff:
        processors.append(theirs.EtaLogitsWarper(settings.eta_cutoff))
    scores = processors(torch.LongTensor([[0]]), torch.from_numpy(logits.copy())[None])
    return torch.softmax(scores.double(), dim=-1)[0].numpy()


def our_probabilities(logits: np.ndarray, settings: SamplingSettings) -> np.ndarray:
    tokens, weights = distribution(logits, settings)
    probabilities = np.zeros(logits.size)
    probabilities[tokens] = weights / weights.sum()
    return probabilities


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("spread", [0.3, 3.0, 12.0])
def test_probabilities_equal_transformers(settings: SamplingSettings, spread: float) -> None:
    random = np.random.default_rng(5)
    logits = random.normal(scale=spread, size=VOCAB).astype(np.float32)
    ours = our_probabilities(logits, settings)
    np.testing.assert_allclose(ours, their_probabilities(logits, settings), rtol=1e-5, atol=1e-9)


def test_top_k_keeps_ties_with_the_last_as_transformers_does() -> None:
    logits = np.array([1, 3, 2, 2, 2, 0], dtype=np.float32)
    settings = SamplingSettings(1.0, top_k=2)
    ours = our_probabilities(logits, settings)
    assert np.flatnonzero(ours).tolist() == [1, 2, 3, 4]
    np.testing.assert_allclose(ours, their_probabilities(logits, settings), rtol=1e-6)


def test_masked_logits_are_never_drawn() -> None:
    logits = np.array([-np.inf, 1.0, -np.inf, 0.5], dtype=np.float32)
    settings = SamplingSettings(0.5, top_k=3, top_p=0.999)
    np.testing.assert_allclose(our_probabilities(logits, settings), their_probabilities(logits, settings), rtol=1e-6)


@pytest.mark.parametrize("top_p", [0.05, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("spread", [0.0, 0.01, 1.0, 40.0, 5000.0])
def test_the_nucleus_is_the_smallest_set_that_reaches_p(top_p: float, spread: float) -> None:
    random = np.random.default_rng(9)
    scores = (spread * random.normal(size=500)).astype(np.float32)
    scores -= scores.max()
    kept = nucleus(scores, top_p)
    probabilities = np.exp(scores.astype(np.float64))
    probabilities /= probabilities.sum()
    assert probabilities[kept].sum() >= top_p - 1e-9
    assert kept.size == 1 or probabilities[kept[:-1]].sum() < top_p
    assert scores[kept].min() >= np.delete(scores, kept).max(initial=-np.inf)


def test_draws_follow_the_distribution() -> None:
    """Chi-square over 20,000 draws from 12 tokens; 39 is exceeded once in 20,000 by a right sampler of 12 classes."""
    random = np.random.default_rng(1)
    logits = random.normal(scale=1.5, size=12).astype(np.float32)
    settings = SamplingSettings(1.3)
    sampler = Sampler(settings, seed=[3, 0])
    expected = their_probabilities(logits, settings) * 20_000
    counts = np.bincount([sampler.choose(logits) for _ in range(20_000)], minlength=12)
    assert ((counts - expected) ** 2 / expected).sum() < 39


def test_filtered_draws_follow_the_filtered_distribution() -> None:
    logits = np.random.default_rng(2).normal(scale=2.0, size=50).astype(np.float32)
    settings = SamplingSettings(1.0, top_k=10, top_p=0.9, min_p=0.02)
    expected = their_probabilities(logits, settings) * 20_000
    sampler = Sampler(settings, seed=11)
    counts = np.bincount([sampler.choose(logits) for _ in range(20_000)], minlength=50)
    possible = expected > 0
    assert not counts[~possible].any()
    assert ((counts - expected)[possible] ** 2 / expected[possible]).sum() < 39


def test_a_draw_at_either_end_stays_inside() -> None:
    weights = np.array([0.0, 0.5, 0.5, 0.0])
    assert draw(weights, 0.0) == 1
    assert draw(weights, 0.5) == 2
    assert draw(weights, np.nextafter(1.0, 0.0)) == 2
    assert draw(np.array([1.0]), np.nextafter(1.0, 0.0)) == 0


def test_no_token_of_weight_0_is_drawn() -> None:
    """Draw also with the smallest and largest random numbers, where rounding could select such a token."""
    for weight in np.random.default_rng(3).uniform(1, 150_000, 2_000):
        weights = np.array([0.0, weight, 0.0, 0.0])
        assert draw(weights, 0.0) == draw(weights, np.nextafter(1.0, 0.0)) == 1


def test_greedy_leaves_the_logits_alone_and_takes_the_first_of_equals() -> None:
    logits = np.array([1, 5, 5, 2], dtype=np.float32)
    logits.setflags(write=False)
    assert Sampler(SamplingSettings()).choose(logits) == 1


@pytest.mark.parametrize(
    "settings", [SamplingSettings(), SamplingSettings(1.0), SamplingSettings(1.0, top_k=2)], ids=str
)
def test_nan_logits_are_refused(settings: SamplingSettings) -> None:
    logits = np.array([1, np.nan, 0, 2], dtype=np.float32)
    with pytest.raises(ArtifactError, match="the model's logits are not finite numbers") as caught:
        Sampler(settings).choose(logits)
    assert str(caught.value).endswith("and if its files are whole, the checkpoint's weights are damaged")
    for half in ("float16", "bfloat16"):
        with pytest.raises(ArtifactError, match="they overflow in half precision: use --precision fp32, or --activ"):
            Sampler(settings, activations=half).choose(logits)


def test_a_tiny_temperature_is_greedy() -> None:
    logits = np.array([1, 5, 4.9999, -1e9], dtype=np.float32)
    for temperature in (1e-6, 1e-30, 1e-300):
        tokens, weights = distribution(logits, SamplingSettings(temperature, top_p=0.9))
        assert tokens[weights > 1e-9].tolist() == [1]


def test_a_fractional_top_k_is_refused() -> None:
    with pytest.raises(UsageError, match=r"top_k must be a whole number, 0 or more, not 2\.5"):
        SamplingSettings(1.0, top_k=2.5)  # type: ignore[arg-type]
