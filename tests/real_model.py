"""A real, trained model: the folder of its checkpoint, and the marks of the tests that need it.

The folder is named by INTAGLIO_REAL_MODEL, or is ~/.cache/real-model/qwen2-0.5b; without it these tests skip.
"""

import os
from pathlib import Path

import pytest

FOLDER = Path(os.environ.get("INTAGLIO_REAL_MODEL") or Path.home() / ".cache" / "real-model" / "qwen2-0.5b")


def needs_real_model(file: str) -> list[pytest.MarkDecorator]:
    """Return the marks of tests that read ``file`` of the checkpoint."""
    reason = f"there is no real model in {FOLDER}"
    return [pytest.mark.real, pytest.mark.skipif(not (FOLDER / file).is_file(), reason=reason)]
