"""transformers' tokenizers of the checkpoints, each read once."""

import warnings
from collections.abc import Callable
from typing import Any

import pytest
from intaglio.tests.files.chat.conversations import CHECKPOINTS


@pytest.fixture(scope="module")
def tokenizers() -> Callable[[str], Any]:
    import transformers

    found: dict[str, Any] = {}

    def get(name: str) -> Any:
        if name not in found:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found[name] = transformers.AutoTokenizer.from_pretrained(CHECKPOINTS / name)
        return found[name]

    return get
