"""One packed weight for the tests of GPTQ, AWQ and auto-round."""

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
from .memory import check_weight as check_any_weight

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
    """Check the numbers of a weight, a range inside words and periods of packed codes, and its grid."""
    check_any_weight(weight, torch.from_numpy(expected))
    part = weight.values(range(9, 42), range(5, 77))
    assert torch.equal(part, torch.from_numpy(expected)[9:42, 5:77])
