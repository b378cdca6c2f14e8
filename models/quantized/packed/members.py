"""The tensors of a packed weight, their shapes and dtypes, checked against each other and against the settings."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from ....errors import CheckpointError, UnsupportedError
from ...storage.store import TensorStore
from ...weight_source import TensorInfo
from .words import WORD, period

CODES, ZEROS, SCALES, INDEX = "qweight", "qzeros", "scales", "g_idx"
SCALE_DTYPES = ("F16", "BF16", "F32")

ZeroPoints = Literal["stored", "one less", "one less, wrapped", "one less, in words"]
"""How ``qzeros`` holds a zero point z of b bits.

``stored``: as it is. ``one less``: z - 1. ``one less, wrapped``: z - 1 modulo 2**b, so that 2**b - 1 stands for 0.
``one less, in words``: each word of packed zero points is one less in each of its fields, with borrows between them.
"""


@dataclass(frozen=True)
class Scheme:
    """What the settings of a checkpoint say of its packed weights.

    Args:
        format: its name in messages.
        where: the place of the settings in messages.
        bits: those that occur.
        group_sizes: those that occur; -1 for one group of all columns.
        zero_points: how they are stored.
        awq: ``qweight`` [K, N / 8] is packed along the rows of the weight, in AWQ's order; else [K * bits / 32, N].
        act_order: every weight has a ``g_idx``.
    """

    format: str
    where: str
    bits: frozenset[int]
    group_sizes: frozenset[int]
    zero_points: ZeroPoints
    awq: bool = False
    act_order: bool = False


Members = Mapping[str, TensorInfo]
"""The tensors of a weight, by the last part of their names."""


def modules(names: Iterable[str]) -> list[str]:
    """Return the prefixes, with a dot, of the modules that have packed weights, in the order of the names."""
    stems = (name[: -len(part)] for name in names for part in (CODES, ZEROS, INDEX) if name.endswith(f".{part}"))
    return list(dict.fromkeys(stems))


def check_members(store: TensorStore, module: str, scheme: Scheme) -> tuple[Members, tuple[int, int], int]:
    """Return the tensors of a weight [N, K], its shape, and the bits of its codes.

    Args:
        module: the prefix of their names, with a dot.

    Raises:
        CheckpointError: a tensor is missing, or contradicts another or the settings.
        UnsupportedError: a tensor has a dtype that is not read.
    """
    found = _found(store, module, scheme)
    for part, dtypes in ((CODES, ("I32",)), (ZEROS, ("I32",)), (SCALES, SCALE_DTYPES), (INDEX, ("I32", "I64"))):
        if part in found and found[part].dtype not in dtypes:
            raise UnsupportedError(
                f"{found[part].file}: {module}{part} has dtype {found[part].dtype}, and {scheme.format} is read with "
                f"{' or '.join(dtypes)}; export the checkpoint that it was made from"
            )
    for part, dimensions in ((CODES, 2), (ZEROS, 2), (SCALES, 2), (INDEX, 1)):
        if part in found and (len(found[part].shape) != dimensions or 0 in found[part].shape):
            raise CheckpointError(
                f"{found[part].file}: {module}{part} has shape {found[part].shape}, which is not that of a "
                f"{'matrix' if dimensions == 2 else 'vector'}; fetch the file again"
            )
    groups, rows = found[SCALES].shape
    bits = _bits(found, module, scheme, rows)
    columns = found[CODES].shape[0] if scheme.awq else found[CODES].shape[0] * WORD // bits
    codes = (columns, rows * bits // WORD) if scheme.awq else (columns * bits // WORD, rows)
    for part, shape in ((CODES, codes), (ZEROS, (groups, rows * bits // WORD)), (INDEX, (columns,))):
        if part in found and found[part].shape != shape:
            raise _contradiction(found, module, part, f"expected {shape} for {bits} bits", scheme)
    return found, (rows, columns), bits


def group_size(members: Members, module: str, scheme: Scheme, columns: int) -> int:
    """Return the size of the groups of a weight of some columns; all of them for one group.

    Raises:
        CheckpointError: no group size of the settings gives as many groups as there are scales.
    """
    groups = members[SCALES].shape[0]
    sizes = {columns if size == -1 else min(size, columns) for size in scheme.group_sizes}
    fitting = sorted(size for size in sizes if -(-columns // size) == groups)
    if not fitting:
        named = " or ".join(str(size) for size in sorted(scheme.group_sizes))
        raise _contradiction(members, module, SCALES, f"with {columns} columns in groups of {named}", scheme)
    if scheme.awq and columns % fitting[0]:
        raise _contradiction(
            members, module, SCALES, f"and {columns} columns are not a multiple of the group size {fitting[0]}", scheme
        )
    if len(fitting) > 1 and INDEX not in members:
        raise UnsupportedError(
            f"{members[SCALES].file}: the groups of {module}{SCALES} may have {fitting[0]} or {fitting[1]} columns by "
            f"{scheme.where}; export the checkpoint that it was made from"
        )
    return fitting[0]


def _found(store: TensorStore, module: str, scheme: Scheme) -> dict[str, TensorInfo]:
    parts = (CODES, ZEROS, SCALES, INDEX)
    found = {part: store.tensors[module + part] for part in parts if module + part in store.tensors}
    first = next(iter(found))
    for part in parts if scheme.act_order else parts[:3]:
        if part not in found:
            because = f", and {scheme.where} has desc_act = true" if part == INDEX else ""
            raise CheckpointError(
                f"{found[first].file}: {module}{part} is missing beside {module}{first}{because}; fetch the checkpoint "
                "again"
            )
    if f"{module}weight" in store.tensors:
        raise CheckpointError(
            f"{found[first].file}: {module}weight and {module}{CODES} are both there, and only one can be the weight; "
            "remove the other"
        )
    if INDEX in found and scheme.awq:
        raise UnsupportedError(
            f"{found[INDEX].file}: {module}{INDEX} is a tensor of GPTQ, and {scheme.where} says {scheme.format}; "
            "export the checkpoint that it was made from"
        )
    return found


def _bits(found: Members, module: str, scheme: Scheme, rows: int) -> int:
    """Return the bits that the zero points of some rows have, and that the shapes can have."""
    bits, rest = divmod(found[ZEROS].shape[1] * WORD, rows)
    if rest or bits not in scheme.bits:
        named = " or ".join(str(one) for one in sorted(scheme.bits))
        raise _contradiction(found, module, ZEROS, f"with {rows} rows of {named} bits", scheme)
    packed = rows if scheme.awq else found[CODES].shape[0] * WORD // bits
    if rows % period(bits) or packed % period(bits):
        raise _contradiction(found, module, CODES, f"and {bits} bits need multiples of {period(bits)} codes", scheme)
    return bits


def _contradiction(members: Members, module: str, part: str, expected: str, scheme: Scheme) -> CheckpointError:
    shapes = ", ".join(f"{name} {info.shape}" for name, info in members.items())
    return CheckpointError(
        f"{members[part].file}: {module}{part} has shape {members[part].shape}, {expected} ({scheme.where}; the shapes "
        f"are {shapes}); the settings belong to other weights, or the file is damaged: fetch both again"
    )
