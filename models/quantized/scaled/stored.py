"""Checks of the tensors that a quantized weight is stored in."""

from collections.abc import Iterable

from ....errors import CheckpointError
from ...storage.store import TensorStore
from ...weight_source import TensorInfo

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
