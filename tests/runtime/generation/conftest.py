"""An artifact of quantized weights, made once."""

from pathlib import Path

import pytest
from intaglio import QuantizeOptions, quantize

CHECKPOINTS = Path(__file__).parents[2] / "checkpoints"


@pytest.fixture(scope="session")
def quantized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """tiny-qwen2 in int4."""
    folder = tmp_path_factory.mktemp("quantized") / "qwen2"
    quantize(CHECKPOINTS / "tiny-qwen2", folder, options=QuantizeOptions(method="rtn"))
    return folder
