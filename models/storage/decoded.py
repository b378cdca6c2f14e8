"""A store whose quantized weights are read as the numbers that they stand for."""

from collections.abc import Mapping

from torch import Tensor

from ..quantized.weights import QuantizedWeights
from ..weight_source import TensorInfo
from .store import TensorStore


class Decoded:
    """The tensors of a store, with each quantized weight in the place of the tensors that it is stored in."""

    def __init__(self, store: TensorStore, quantized: QuantizedWeights) -> None:
        self.store = store
        self.weights = quantized.weights
        plain = {name: info for name, info in store.tensors.items() if name not in quantized.stored_in}
        self.tensors: Mapping[str, TensorInfo] = plain | {name: one.info for name, one in self.weights.items()}

    def read(self, name: str, rows: range | None = None, columns: range | None = None) -> Tensor:
        weight = self.weights.get(name)
        if weight is None:
            return self.store.read(name, rows, columns)
        height, width = weight.info.shape
        return weight.values(range(height) if rows is None else rows, range(width) if columns is None else columns)
