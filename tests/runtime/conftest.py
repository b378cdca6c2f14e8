"""What tests against transformers have in common."""

import warnings
from collections.abc import Iterator

import pytest
import torch


@pytest.fixture
def transformers_quietly() -> Iterator[None]:
    """transformers' own warnings are not ours to fix; and models this small run best on one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    torch.set_num_threads(before)
