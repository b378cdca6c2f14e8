"""The interface of stored tensors, and a store under other names."""

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor

from ..weight_source import TensorInfo


class TensorStore(Protocol):
    """Tensors by name. Files are one; each step between them and a model's weights is another around it."""

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """Every tensor by its name."""
        ...

    def read(self, name: str, rows: range | None = None, columns: range | None = None) -> Tensor:
        """Return a tensor in memory of its own, or a range of its rows, or of a matrix' columns.

        Raises:
            CheckpointError: the tensor cannot be read.
        """
        ...


class Renamed:
    """A store whose tensors have other names: ``stored`` gives the names in the store by the new ones."""

    def __init__(self, store: TensorStore, stored: Mapping[str, str]) -> None:
        self.store = store
        self.stored = stored
        self.tensors: Mapping[str, TensorInfo] = {name: store.tensors[old] for name, old in stored.items()}

    def read(self, name: str, rows: range | None = None, columns: range | None = None) -> Tensor:
        return self.store.read(self.stored[name], rows, columns)
