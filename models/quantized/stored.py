"""Checks of the tensors that a quantized weight is stored in, before anything is computed with them."""

from collections.abc import Iterable, Sequence
from math import prod

import torch
from torch import Tensor

from ...errors import CheckpointError
from ..dtypes import ITEM_BYTES
from ..storage.store import TensorStore
from ..weight_source import TensorInfo

AGAIN = "fetch the checkpoint again"


def expect(store: TensorStore, name: str, dtypes: Sequence[str], shape: Sequence[int | None]) -> TensorInfo:
    """Return what the header says of a tensor.

    Args:
        dtypes: those that it may have, as safetensors names them.
        shape: the one that it has; None for a size that may be any from 1.

    Raises:
        CheckpointError: the tensor is missing, or has another dtype or shape.
    """
    info = store.tensors.get(name)
    if info is None:
        raise CheckpointError(f"tensor {name} is missing; {AGAIN}")
    if info.dtype not in dtypes:
        raise CheckpointError(f"{info.file}: tensor {name} is {info.dtype}, expected {' or '.join(dtypes)}; {AGAIN}")
    fits = len(info.shape) == len(shape) and all(
        size == wanted if wanted is not None else size > 0 for size, wanted in zip(info.shape, shape, strict=True)
    )
    if not fits:
        expected = ", ".join("*" if size is None else str(size) for size in shape)
        raise CheckpointError(
            f"{info.file}: tensor {name} has shape {list(info.shape)}, expected [{expected}]; {AGAIN}"
        )
    return info


def stored_bytes(infos: Iterable[TensorInfo]) -> int:
    """Return the bytes that tensors take in their files."""
    return sum(prod(info.shape) * ITEM_BYTES.get(info.dtype, 1) for info in infos)


def finite(numbers: Tensor, info: TensorInfo, name: str) -> Tensor:
    """Return scales or offsets in float32.

    Raises:
        CheckpointError: one of them is infinite or not a number.
    """
    numbers = numbers.float()
    if not bool(torch.isfinite(numbers).all()):
        raise CheckpointError(f"{info.file}: tensor {name} holds a number that is infinite or NaN; {AGAIN}")
    return numbers
