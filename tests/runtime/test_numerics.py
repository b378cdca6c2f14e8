"""The largest of many, against sorting them all."""

import numpy as np
import pytest
from intaglio.runtime.numerics import largest


@pytest.mark.parametrize("size", [1, 63, 64, 65, 288, 5000])
@pytest.mark.parametrize("kind", ["spread", "ties", "masked", "rising"])
def test_the_largest_and_what_equals_the_last_of_them(size: int, kind: str) -> None:
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
