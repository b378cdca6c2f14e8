"""Figures against values computed by hand and by scipy-free textbook formulas in float64."""

import numpy as np
import pytest
from intaglio.parity.report.tally import Tally, log_softmax


def logits(rows: int = 70, words: int = 40, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 3, (rows, words)).astype(np.float32)


def tally(source: np.ndarray, artifact: np.ndarray, **options: object) -> Tally:
    found = Tally("distribution", 1e-3, **{"keep": 5, **options})  # type: ignore[arg-type]
    found.add(source, artifact, following=np.arange(len(source) - 1) % source.shape[1])
    return found


def test_the_same_numbers_have_no_distance() -> None:
    figures = tally(logits(), logits()).figures()
    assert (figures.max_difference, figures.relative_error, figures.kl_mean) == (0, 0, 0)
    assert (figures.top1, figures.top5, figures.flips, figures.near_ties) == (1, 1, 0, 0)
    assert figures.perplexity == figures.source_perplexity


def test_divergence_and_perplexity_are_the_textbook_s() -> None:
    source = logits()
    artifact = source + logits(seed=1) * 0.1
    figures = tally(source, artifact).figures()
    p, q = (np.exp(x - x.max(-1, keepdims=True)) for x in (source.astype(np.float64), artifact.astype(np.float64)))
    p, q = p / p.sum(-1, keepdims=True), q / q.sum(-1, keepdims=True)
    kl = (p * np.log(p / q)).sum(-1)
    assert figures.kl_mean == pytest.approx(kl.mean(), rel=1e-4)
    assert figures.kl_max == pytest.approx(kl.max(), rel=1e-4)
    assert figures.kl_p99 == pytest.approx(np.quantile(kl, 0.99), rel=1e-4)
    following = np.arange(69) % 40
    assert figures.perplexity == pytest.approx(np.exp(-np.log(q[np.arange(69), following]).mean()), rel=1e-5)
    assert figures.source_perplexity == pytest.approx(np.exp(-np.log(p[np.arange(69), following]).mean()), rel=1e-5)
    centred = source - source.mean(-1, keepdims=True)
    assert figures.relative_error == pytest.approx(
        np.linalg.norm(artifact - source) / np.linalg.norm(centred), rel=1e-4
    )
    assert figures.max_difference == pytest.approx(np.abs(artifact - source).max())


def test_standard_errors_are_the_spread_of_repeated_samples() -> None:
    """Compare with the spread of the figures over many draws of as many positions."""
    draws = []
    for seed in range(300):
        source = logits(seed=2 * seed)
        noise = np.random.default_rng(seed).exponential(0.1, (len(source), 1)).astype(np.float32)
        draws.append(tally(source, source + logits(seed=2 * seed + 1) * noise).figures())
    for name in ("relative_error", "kl_mean"):
        spread = np.std([getattr(found, name) for found in draws])
        assert np.median([found.standard_errors[name] for found in draws]) == pytest.approx(spread, rel=0.25)
    shares = [found.flips / found.positions for found in draws]
    assert np.mean([found.standard_errors["flips"] for found in draws]) == pytest.approx(np.std(shares), rel=0.25)


def test_a_near_tie_is_no_flip() -> None:
    source = np.zeros((3, 10), dtype=np.float32)
    source[:, 0], source[:, 1], source[:, 2] = 5.0, 4.9999, 4.0
    artifact = source.copy()
    artifact[0, 1] = 5.1  # the source hardly prefers word 0 to this
    artifact[1, 2] = 5.1  # and clearly to this
    figures = tally(source, artifact).figures()
    assert (figures.near_ties, figures.flips) == (1, 1)
    assert figures.top1 == pytest.approx(1 / 3)
    assert figures.top5 == 1


def test_the_five_likeliest() -> None:
    source = np.zeros((1, 10), dtype=np.float32)
    source[0, 0] = 1
    artifact = np.arange(10, dtype=np.float32)[None]
    assert tally(source, artifact).figures().top5 in (0, None)
    artifact[0, 0] = 5.5  # behind 6, 7, 8 and 9
    assert tally(source, artifact).figures().top5 == 1


def test_nan_and_infinity_count_as_very_large_differences() -> None:
    artifact = logits()
    artifact[3, 4] = np.nan
    artifact[5] = np.inf
    figures = tally(logits(), artifact).figures()
    assert figures.max_difference >= 0.99e15
    assert figures.kl_mean is not None
    assert figures.perplexity is not None
    assert np.isfinite([figures.kl_mean, figures.relative_error, figures.perplexity]).all()


def test_the_worst_positions_are_kept_with_both_choices() -> None:
    source = logits()
    artifact = source.copy()
    artifact[41, 7] += 20
    artifact[12, 3] += 10
    found = tally(source, artifact, keep=2)
    assert [(flip.position, flip.got) for flip in found.worst] == [(41, 7), (12, 3)]
    assert found.worst[0].wanted == source[41].argmax()
    assert found.worst[0].wanted_probability == pytest.approx(np.exp(log_softmax(source[41])).max(), rel=1e-5)
    assert found.worst[0].got_probability > 0.9


def test_independent_labels_agree_by_sign() -> None:
    found = Tally("independent", 1e-3)
    found.add(np.array([[1.0, -1.0], [2.0, 2.0]]), np.array([[3.0, -0.1], [2.0, -0.1]]))
    figures = found.figures()
    assert figures.top1 == 0.5
    assert figures.kl_mean is None


def test_plain_values_have_differences_alone() -> None:
    found = Tally("values", 1e-3)
    found.add(np.ones((2, 4), dtype=np.float32), np.ones((2, 4), dtype=np.float32) * 1.1)
    figures = found.figures()
    assert figures.relative_error == pytest.approx(0.1, rel=1e-5)
    assert figures.top1 is None
    assert figures.flips == 0
