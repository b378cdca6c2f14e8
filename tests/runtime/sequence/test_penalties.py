"""Penalties on tokens that occurred."""

import numpy as np
import pytest
from intaglio.runtime.sequence.processors.penalties import LARGEST, RepetitionPenalty


@pytest.mark.parametrize("penalty", [1e-300, 1e-38, 0.5, 1.3, 100.0])
def test_what_a_penalty_makes_is_finite_and_as_in_float64(penalty: float) -> None:
    logits = np.array([12.5, -3.25, 0.0, 7.0], np.float32)
    found = RepetitionPenalty(penalty)(np.array([0, 1, 2]), logits.copy())
    exact = logits.astype(np.float64)
    factor = max(penalty, float(np.finfo(np.float32).tiny))
    exact[:3] = np.where(exact[:3] < 0, exact[:3] * factor, exact[:3] / factor)
    np.testing.assert_allclose(found, np.minimum(exact, LARGEST), rtol=1e-6)


def test_a_penalty_hides_no_logit_that_is_not_finite() -> None:
    logits = np.array([np.inf, np.nan, -np.inf], np.float32)
    np.testing.assert_array_equal(RepetitionPenalty(2.0)(np.arange(3), logits.copy()), logits)
