"""Fixtures of the tests of attention."""

import pytest
from intaglio.runtime import kernels

from ..fuzz.attention import FLOAT32, products


@pytest.fixture
def in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compute attention in float32 whatever the length of a pass, so that all passes give the same bits."""
    if products(kernels.LONG_SEQUENCE) != FLOAT32:
        monkeypatch.setenv("INTAGLIO_KERNELS", "avx2")
