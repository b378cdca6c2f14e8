from collections.abc import Iterator

import pytest
import torch

from .artifacts import Shelf


@pytest.fixture(autouse=True, scope="package")
def one_thread() -> Iterator[None]:
    """Tensors this small gain nothing from threads, and on a busy machine the threads wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    """Sound artifacts, each made once."""
    return Shelf(tmp_path_factory.mktemp("sound"))
