"""Fixtures of the tests of attention."""

import pytest
from intaglio.runtime import kernels


@pytest.fixture
def in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compute attention in float32 whatever the length of a pass, so that all passes give the same bits."""
    if kernels.instructions() == "AMX":
        monkeypatch.setenv("INTAGLIO_KERNELS", "avx512-vnni")
