"""Mutations of tensors in safetensors files that stay whole: what the safetensors library itself does not refuse."""

import json
import random
import struct
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

Random = random.Random

SIZES = {"BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "I16": 2, "F16": 2, "BF16": 2, "I32": 4, "F32": 4, "I64": 8}
FLOATS = {"F16": np.float16, "F32": np.float32}
WHOLE = {"I32": np.int32, "I64": np.int64, "I16": np.int16, "I8": np.int8, "U8": np.uint8}
EXTREMES = (-1, 0, 1, 2, 15, 16, 255, 4096, 2**31 - 1, -(2**31), 2**63 - 1, -(2**63))
WIDE = (0.0, -0.0, -1.0, 1e-8, 1e-45, 65504.0, 1e38, float("nan"), float("inf"), float("-inf"))


@dataclass(frozen=True)
class RawTensor:
    """A tensor of a safetensors file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    data: bytes


def mutate_tensors(path: Path, choice: Random) -> str:
    """Change one tensor of a safetensors file and write the file anew, its header in agreement.

    Raises:
        ValueError: the file cannot be read, or it has no tensors.
    """
    tensors = read_tensors(path.read_bytes())
    if not tensors:
        raise ValueError("no tensors")
    # Scales, zero points, indices and codes have names of their own: each kind is as likely as the others.
    kinds = sorted({one.name.rpartition(".")[2] for one in tensors})
    kind = choice.choice(kinds)
    index = choice.choice([i for i, one in enumerate(tensors) if one.name.rpartition(".")[2] == kind])
    old = tensors[index]
    what = choice.choice(sorted(WAYS))
    if what == "delete":
        del tensors[index]
    elif what == "rename":
        tensors[index] = replace(old, name=choice.choice((old.name + "_", "x", kind, f"model.{old.name}")))
    elif what == "swap":
        other = choice.randrange(len(tensors))
        tensors[index], tensors[other] = replace(tensors[other], name=old.name), replace(old, name=tensors[other].name)
    elif what == "twice":
        tensors.append(old)
    elif what == "add":
        more = choice.choice(("g_idx", "bias", "qzeros", "weight_scale", "weight.absmax", "input_scale", "biases"))
        tensors.append(replace(old, name=f"{old.name.rpartition('.')[0]}.{more}"))
    else:
        tensors[index] = WAYS[what](old, choice)
    write_tensors(path, tensors)
    return f"tensor {old.name} {old.dtype} {list(old.shape)}: {what}"


def read_tensors(content: bytes) -> list[RawTensor]:
    """Return the tensors of a safetensors file.

    Raises:
        ValueError: it is not one.
    """
    try:
        (size,) = struct.unpack("<Q", content[:8])
        header = json.loads(content[8 : 8 + size])
        found = []
        for name, one in header.items():
            if name != "__metadata__":
                start, stop = one["data_offsets"]
                data = content[8 + size + start : 8 + size + stop]
                found.append(RawTensor(name, one["dtype"], tuple(one["shape"]), data))
        return found
    except (struct.error, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(str(error)) from None


def write_tensors(path: Path, tensors: list[RawTensor]) -> None:
    """Write a safetensors file; of two tensors of one name both are in the header."""
    entries, data = [], b""
    for one in tensors:
        offsets = [len(data), len(data) + len(one.data)]
        fields = {"dtype": one.dtype, "shape": list(one.shape), "data_offsets": offsets}
        entries.append(f"{json.dumps(one.name)}:{json.dumps(fields)}")
        data += one.data
    header = ("{" + ",".join(entries) + "}").encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + data)


def _dtype(old: RawTensor, choice: Random) -> RawTensor:
    """Give it another dtype, of as many bytes where there is one, or bytes that fit."""
    new = choice.choice(sorted(SIZES))
    count = len(old.data) // SIZES.get(old.dtype, 1)
    data = (old.data * 8)[: count * SIZES[new]]
    return replace(old, dtype=new, data=data)


def _shape(old: RawTensor, choice: Random) -> RawTensor:
    """Give it another shape, and data that fits."""
    shape = list(old.shape)
    way = choice.choice(("transpose", "flatten", "halve", "more", "empty", "rank"))
    if way == "transpose":
        return replace(old, shape=tuple(reversed(shape)))
    if way == "flatten":
        return replace(old, shape=(int(np.prod(shape)),))
    if way == "rank":
        return replace(old, shape=(1, *shape) if choice.random() < 0.5 else (*shape, 1))
    if not shape:
        return replace(old, shape=(1,))
    axis = choice.randrange(len(shape))
    before = max(1, len(old.data))
    count = int(np.prod(shape)) or 1
    shape[axis] = {"halve": shape[axis] // 2, "more": shape[axis] + 1, "empty": 0}[way]
    size = before // count * int(np.prod(shape))
    return replace(old, shape=tuple(shape), data=(old.data * 2 + bytes(size))[:size])


def _values(old: RawTensor, choice: Random) -> RawTensor:
    """Set some or all of its values to one that is out of range."""
    if old.dtype not in FLOATS and old.dtype not in WHOLE:
        byte = choice.choice((0, 0x7F, 0x80, 0xFF))
        return replace(old, data=bytes([byte]) * len(old.data))
    if old.dtype in FLOATS:
        values = np.frombuffer(old.data, FLOATS[old.dtype]).copy()
        with np.errstate(over="ignore"):
            new = FLOATS[old.dtype](choice.choice(WIDE))
    else:
        kind: Any = WHOLE[old.dtype]
        values = np.frombuffer(old.data, kind).copy()
        limits = np.iinfo(kind)
        new = values.dtype.type(max(limits.min, min(limits.max, choice.choice(EXTREMES))))
    if len(values):
        if choice.random() < 0.5:
            values[:] = new
        else:
            values[choice.randrange(len(values))] = new
    return replace(old, data=values.tobytes())


def _noise(old: RawTensor, choice: Random) -> RawTensor:
    return replace(old, data=choice.randbytes(len(old.data)))


WAYS = {"dtype": _dtype, "shape": _shape, "values": _values, "noise": _noise} | dict.fromkeys(
    ("delete", "rename", "swap", "twice", "add"), _noise
)
