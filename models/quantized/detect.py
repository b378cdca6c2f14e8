"""The format of a checkpoint's quantized weights: ``quantization_config`` in its config.json, or ``quantization``."""

from collections.abc import Callable, Mapping
from pathlib import Path

from ...errors import CheckpointError, UnsupportedError
from ...files.json_fields import JSONFields, shown
from ..storage.store import TensorStore
from . import mlx
from .bitsandbytes import read_bitsandbytes
from .compressed_tensors import read_compressed_tensors
from .fp8 import read_fp8, read_modelopt, read_plain_fp8
from .weights import QuantizedWeights

KEY = "quantization_config"
METHOD = "quant_method"

Reader = Callable[[JSONFields, TensorStore, Path], QuantizedWeights]
"""Reads the weights of one format, from its settings in config.json, the stored tensors, and the folder.

Raises CheckpointError where settings and tensors contradict each other, UnsupportedError where it cannot read them.
"""

READERS: Mapping[str, Reader] = {
    "bitsandbytes": read_bitsandbytes,
    "compressed-tensors": read_compressed_tensors,
    "fbgemm_fp8": read_fp8,
    "fp8": read_fp8,
    "modelopt": read_modelopt,
}
"""The readers by ``quant_method``."""


def read_quantized(config: JSONFields, store: TensorStore, folder: Path) -> QuantizedWeights | None:
    """Return the quantized weights of a checkpoint; None where it has none.

    Args:
        config: config.json.

    Raises:
        CheckpointError: its settings or its tensors are damaged.
        UnsupportedError: the format is not read.
    """
    try:
        return _read(config, store, folder)
    except ValueError as error:  # of JSONFields
        raise CheckpointError(f"{error}; fetch config.json again") from None


def _read(config: JSONFields, store: TensorStore, folder: Path) -> QuantizedWeights | None:
    if (settings := config.fields(mlx.KEY)) is not None:  # mlx-lm repeats it as quantization_config
        return mlx.read_mlx(settings, store, folder)
    settings = config.fields(KEY)
    if settings is None:
        return read_plain_fp8(store, folder)
    where = f"{folder / 'config.json'}: {KEY}"
    method = settings.get(METHOD)
    if not isinstance(method, str):
        raise CheckpointError(f"{where} has no {METHOD}; fetch config.json again")
    if method not in READERS:
        known = ", ".join(sorted(READERS)) or "none"
        raise UnsupportedError(
            f"{where}.{METHOD} is {shown(method)}, a format that is not read (those that are: {known}); export the "
            "checkpoint that it was made from"
        )
    return READERS[method](settings, store, folder)
