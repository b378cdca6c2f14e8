"""The largest values of an array, against sorting it."""

import numpy as np
import pytest
from intaglio.runtime.numerics import largest


@pytest.mark.parametrize("size", [1, 63, 64, 65, 288, 5000])
@pytest.mark.parametrize("kind", ["spread", "ties", "masked", "rising"])
def test_the_largest_values_and_ties_with_the_last(size: int, kind: str) -> None:
    random = np.random.default_rng(size)
    values = random.normal(size=size).astype(np.float32)
    if kind == "ties":
        values = np.round(values)
    elif kind == "masked":
        values[random.random(size) < 0.95] = -np.inf
    elif kind == "rising":
        values.sort()
    before = values.copy()
    for k in {1, 2, 40, size - 1, size} & set(range(1, size + 1)):
        threshold = np.sort(values)[-k]
        assert largest(values, k).tolist() == np.flatnonzero(values >= threshold).tolist()
    assert (values == before).all()
