"""Packs and unpacks weights as GPTQ and AWQ store them, as streams of bits in NumPy, from the layouts' descriptions.

Nothing here is shared with the reader in ``models/quantized``.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Zeros = Literal["v1", "v1 in words", "v2"]
AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
"""The row that each of the 8 fields of a word holds, the lowest first."""


@dataclass(frozen=True)
class Packed:
    """A quantized weight [N, K]: codes [N, K], zero points and float16 scales [N, G], and the group of each column."""

    codes: Array
    zeros: Array
    scales: Array
    groups: Array
    bits: int

    def values(self) -> Array:
        """Return the numbers in float32, [N, K]."""
        steps = self.codes.astype(np.float32) - self.zeros[:, self.groups].astype(np.float32)
        return self.scales.astype(np.float32)[:, self.groups] * steps


def quantize(weight: Array, bits: int, groups: Array, *, symmetric: bool) -> Packed:
    """Round a float weight [N, K] to nearest, with one scale and zero point to a group of a row."""
    most = (1 << bits) - 1
    count = int(groups.max()) + 1
    scales, zeros = np.zeros((len(weight), count), np.float16), np.zeros((len(weight), count), np.int64)
    for group in range(count):
        part = weight[:, groups == group]
        if symmetric:
            scales[:, group] = 2 * np.abs(part).max(1) / most
            zeros[:, group] = (most + 1) // 2
        else:
            low, high = np.minimum(part.min(1), 0), np.maximum(part.max(1), 0)
            scales[:, group] = (high - low) / most
            zeros[:, group] = np.clip(np.rint(-low / scales[:, group].astype(np.float32)), 0, most)
    wide = scales.astype(np.float32)
    codes = np.clip(np.rint(weight / wide[:, groups]) + zeros[:, groups], 0, most).astype(np.int64)
    return Packed(codes, zeros, scales, groups, bits)


def words(fields: Array, bits: int) -> Array:
    """Pack each column of [L, n] into int32 words, the first field in the lowest bits: [L * bits / 32, n]."""
    stream = (fields.T[:, :, None] >> np.arange(bits)) & 1
    packed = np.packbits(stream.reshape(fields.shape[1], -1).astype(np.uint8), axis=1, bitorder="little")
    return np.ascontiguousarray(packed.view("<i4").T)


def fields(packed: Array, bits: int) -> Array:
    """Undo ``words``."""
    stream = np.unpackbits(np.ascontiguousarray(packed.T).view(np.uint8), axis=1, bitorder="little")
    return (stream.reshape(packed.shape[1], -1, bits) @ (1 << np.arange(bits))).T


def gptq(weight: Packed, kind: Zeros, *, index: bool = True) -> dict[str, Array]:
    """Return the tensors of a weight by the last parts of their names."""
    zeros = weight.zeros.T
    if kind == "v1":
        zeros = (zeros - 1) % (1 << weight.bits)
    packed = words(zeros.T, weight.bits).T
    if kind == "v1 in words":
        ones = sum(1 << shift for shift in range(0, 32, weight.bits))
        packed = (packed.view(np.uint32) - np.uint32(ones)).view(np.int32)
    made = {"qweight": words(weight.codes.T, weight.bits), "qzeros": packed, "scales": weight.scales.T}
    return made | ({"g_idx": weight.groups.astype(np.int32)} if index else {})


def awq(weight: Packed) -> dict[str, Array]:
    """Return the tensors of a weight of 4 bits by the last parts of their names."""

    def interleaved(rows: Array) -> Array:
        order = np.arange(len(rows)).reshape(-1, 8)[:, AWQ_ORDER].reshape(-1)
        return words(rows[order], 4).T

    return {"qweight": interleaved(weight.codes), "qzeros": interleaved(weight.zeros), "scales": weight.scales.T}


def gptq_values(stored: dict[str, Array], bits: int, kind: Zeros, group_size: int) -> Array:
    """Dequantize a weight from its tensors, float32 [N, K]."""
    codes = fields(stored["qweight"], bits)
    packed = stored["qzeros"]
    if kind == "v1 in words":
        ones = sum(1 << shift for shift in range(0, 32, bits))
        packed = (packed.view(np.uint32) + np.uint32(ones)).view(np.int32)
    zeros = fields(packed.T, bits).T
    if kind == "v1":
        zeros = (zeros + 1) % (1 << bits)
    size = len(codes) if group_size == -1 else group_size
    groups = stored.get("g_idx", np.arange(len(codes)) // size)
    return _values(codes, zeros, stored["scales"], groups)


def awq_values(stored: dict[str, Array], group_size: int) -> Array:
    """Dequantize a weight of AWQ from its tensors, float32 [N, K]."""

    def rows(packed: Array) -> Array:
        found = fields(packed.T, 4).reshape(-1, 8, len(packed))
        return found[:, np.argsort(AWQ_ORDER)].reshape(-1, len(packed))

    codes = rows(stored["qweight"]).T
    size = len(codes) if group_size == -1 else group_size
    return _values(codes, rows(stored["qzeros"]).T, stored["scales"], np.arange(len(codes)) // size)


def _values(codes: Array, zeros: Array, scales: Array, groups: Array) -> Array:
    steps = (codes - zeros[groups]).astype(np.float32)
    return np.ascontiguousarray((scales.astype(np.float32)[groups] * steps).T)
