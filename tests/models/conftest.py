from collections.abc import Callable, Iterator

import pytest
import torch

from .drive import Pair, open_pair
from .variants import Variant


@pytest.fixture(autouse=True, scope="package")
def one_thread() -> Iterator[None]:
    """Use one thread: tensors this small gain nothing from more, and on a busy machine threads wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Pair]:
    """Return ``pair(variant, task, **config changes)``, which opens a checkpoint with both, once for all tests."""
    opened: dict[object, Pair] = {}

    def get(variant: Variant, task: str = "text-generation", **changes: object) -> Pair:
        key = (str(variant), task, repr(sorted(changes.items())))
        if key not in opened:
            opened[key] = open_pair(tmp_path_factory.mktemp("tiny"), variant, task, **changes)
        return opened[key]

    return get
