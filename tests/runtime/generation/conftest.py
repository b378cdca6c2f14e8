"""Artifacts of quantized weights, made once."""

from pathlib import Path

import pytest
from intaglio import QuantizeOptions, quantize

CHECKPOINTS = Path(__file__).parents[2] / "checkpoints"


@pytest.fixture(scope="session", params=["qwen2", "exaone4"])
def quantized(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny checkpoint in int4; that of EXAONE 4.0 has layers with windows of 64 tokens."""
    folder = tmp_path_factory.mktemp("quantized") / str(request.param)
    quantize(CHECKPOINTS / f"tiny-{request.param}", folder, options=QuantizeOptions(method="rtn"))
    return folder
