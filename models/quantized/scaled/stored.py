"""Checks of the tensors that a quantized weight is stored in."""

import math
from collections.abc import Iterable, Mapping

from ....errors import CheckpointError
from ...storage.store import TensorStore
from ...weight_source import TensorInfo

ITEM_BYTES: Mapping[str, int] = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 1),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 2),
    **dict.fromkeys(("F32", "I32", "U32"), 4),
    **dict.fromkeys(("F64", "I64", "U64"), 8),
}
"""The bytes of an item, by the dtype's name in safetensors."""

FLOATS = ("F32", "F16", "BF16", "F64")
INTEGERS = ("I8", "U8", "I16", "I32", "I64")
FLOAT8 = ("F8_E4M3", "F8_E5M2")
REMEDY = "fetch the checkpoint again"


def member(store: TensorStore, name: str, dtypes: Iterable[str], of: str) -> TensorInfo:
    """Return a tensor that belongs to a quantized weight.

    Args:
        of: the format, for messages.

    Raises:
        CheckpointError: it is missing, or has another dtype.
    """
    info = store.tensors.get(name)
    if info is None:
        module = name.rpartition(".")[0]
        file = next((one.file for other, one in store.tensors.items() if other.startswith(f"{module}.")), None)
        raise CheckpointError(f"{file}: tensor {name} is missing, which {of} needs; {REMEDY}")
    allowed = tuple(dtypes)
    if info.dtype not in allowed:
        raise CheckpointError(
            f"{info.file}: tensor {name} has the dtype {info.dtype}, and {of} stores {' or '.join(allowed)}; {REMEDY}"
        )
    return info


def matrix(info: TensorInfo, name: str) -> tuple[int, int]:
    """Return the shape of a tensor that is a matrix.

    Raises:
        CheckpointError: it is not one, or it is empty.
    """
    if len(info.shape) != 2 or 0 in info.shape:
        raise CheckpointError(f"{info.file}: tensor {name} has the shape {list(info.shape)}, not a matrix'; {REMEDY}")
    return info.shape[0], info.shape[1]


def stored_bytes(store: TensorStore, names: Iterable[str]) -> int:
    """Return the bytes that tensors take in their files."""
    return sum(math.prod(store.tensors[name].shape) * ITEM_BYTES.get(store.tensors[name].dtype, 1) for name in names)
