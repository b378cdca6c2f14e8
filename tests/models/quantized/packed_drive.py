"""One packed weight for the tests of GPTQ, AWQ and auto-round, and what every grid keeps to."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from intaglio.files.json_fields import JSONFields
from intaglio.models.quantized.weights import QuantizedWeight, QuantizedWeights
from intaglio.models.storage.store import TensorStore
from numpy.typing import NDArray
from torch import Tensor

from .memory import Memory

Array = NDArray[Any]
Reader = Callable[[JSONFields, TensorStore, Path], QuantizedWeights]

MODULE = "model.layers.0.mlp.up_proj"
WEIGHT = f"{MODULE}.weight"
WHERE = "config.json: quantization_config"


def tensors(parts: Mapping[str, Array], module: str = MODULE) -> dict[str, Tensor]:
    return {f"{module}.{part}": torch.from_numpy(np.ascontiguousarray(array)) for part, array in parts.items()}


def read(reader: Reader, settings: Mapping[str, Any], stored: Mapping[str, Tensor]) -> QuantizedWeights:
    return reader(JSONFields(settings, WHERE), Memory(stored), Path("folder"))


def noise(rows: int, columns: int) -> Array:
    return np.random.default_rng(0).normal(0, 0.25, (rows, columns)).astype(np.float32)


def check_weight(weight: QuantizedWeight, expected: Array) -> None:
    """Check the values against expected ones, ranges against the whole, and the grid against the values."""
    rows, columns = weight.info.shape
    assert (rows, columns) == expected.shape
    assert weight.info.dtype == "F32"
    whole = weight.values(range(rows), range(columns))
    assert torch.equal(whole, torch.from_numpy(expected))
    for some_rows, some_columns in (
        (range(3, 7), range(columns)),
        (range(rows), range(5, 41)),
        (range(9, 10), range(1)),
    ):
        part = whole[some_rows.start : some_rows.stop, some_columns.start : some_columns.stop]
        assert torch.equal(weight.values(some_rows, some_columns), part)
    grid = weight.grid
    assert grid is not None
    codes, parameters = grid.codes(range(rows)), grid.parameters()
    assert codes.dtype == parameters.zero_points.dtype == torch.uint8
    assert int(codes.max()) < 1 << grid.bits
    assert int(parameters.zero_points.max()) < 1 << grid.bits
    assert torch.equal(grid.codes(range(3, 7)), codes[3:7])
    assert parameters.scales.dtype == torch.float32
    assert parameters.scales.shape == parameters.zero_points.shape == (rows, -(-columns // grid.block_size))
    block = torch.arange(columns) // grid.block_size
    numbers = parameters.scales[:, block] * (codes.float() - parameters.zero_points[:, block].float())
    if grid.order is not None:
        numbers = torch.empty_like(numbers).index_copy_(1, grid.order, numbers)
    assert torch.equal(numbers, whole)
