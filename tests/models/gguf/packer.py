"""Quantizers of the GGUF types that gguf-py only reads, from ggml-common.h and dequantize_row_* of ggml-quants.c.

Rounding to the nearest, block by block. Bits are placed one number at a time, as the reference reads them.
"""

from collections.abc import Callable

import gguf
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]

IQ4 = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], np.float32)


def quantize(values: Floats, name: str) -> Bytes:
    """Return a matrix [N, K] as bytes [N, bytes of a row]."""
    kind = gguf.GGMLQuantizationType[name]
    if name in PACKERS:
        elements, _ = gguf.GGML_QUANT_SIZES[kind]
        blocks = values.astype(np.float32).reshape(-1, elements)
        return PACKERS[name](blocks).reshape(len(values), -1)
    packed: Bytes = gguf.quants.quantize(values.astype(np.float32), kind)
    return packed.view(np.uint8).reshape(len(values), -1)


def symmetric(groups: Floats, largest: int, least: int, levels: int) -> tuple[Floats, Bytes, npt.NDArray[np.int64]]:
    """Return d [B], whole scales [B, G] up to ``levels`` and codes [B, G, n] from ``least`` to ``largest``."""
    steps = np.abs(groups).max(2) / largest
    d = (steps.max(1) / levels).astype(np.float16).astype(np.float32)
    scales = np.clip(np.round(steps / np.maximum(d, 1e-8)[:, None]), 1, levels)
    codes = np.clip(np.round(groups / (d[:, None] * scales)[..., None]), least, largest).astype(np.int64)
    return d, scales.astype(np.uint8), codes


def with_minimum(groups: Floats, most: int, levels: int) -> tuple[Floats, Floats, Bytes, Bytes, npt.NDArray[np.int64]]:
    """Return d and dmin [B], whole scales and minima [B, G], and codes [B, G, n] from 0 to ``most``."""
    lowest = np.maximum(-groups.min(2), 0)
    steps = (groups.max(2) + lowest) / most
    d, dmin = ((x.max(1) / levels).astype(np.float16).astype(np.float32) for x in (steps, lowest))
    scales = np.clip(np.round(steps / np.maximum(d, 1e-8)[:, None]), 1, levels)
    minima = np.clip(np.round(lowest / np.maximum(dmin, 1e-8)[:, None]), 0, levels)
    shifted = groups + (dmin[:, None] * minima)[..., None]
    codes = np.clip(np.round(shifted / (d[:, None] * scales)[..., None]), 0, most).astype(np.int64)
    return d, dmin, scales.astype(np.uint8), minima.astype(np.uint8), codes


def halves(*numbers: Floats) -> Bytes:
    return np.stack(numbers, 1).astype(np.float16).view(np.uint8)


def q2_k(blocks: Floats) -> Bytes:
    d, dmin, scales, minima, codes = with_minimum(blocks.reshape(-1, 16, 16), 3, 15)
    flat, packed = codes.reshape(-1, 256), np.zeros((len(blocks), 64), np.uint8)
    for index in range(256):
        part, rest = divmod(index, 128)
        shift, place = divmod(rest, 32)
        packed[:, part * 32 + place] |= (flat[:, index] << 2 * shift).astype(np.uint8)
    shared: Bytes = (scales | minima << 4).astype(np.uint8)
    return np.concatenate([shared, packed, halves(d, dmin)], 1)


def q3_k(blocks: Floats) -> Bytes:
    d, scales, codes = symmetric(blocks.reshape(-1, 16, 16), 3, -4, 31)
    flat, six = codes.reshape(-1, 256) + 4, scales + 32
    low, mask = np.zeros((len(blocks), 64), np.uint8), np.zeros((len(blocks), 32), np.uint8)
    for index in range(256):
        part, rest = divmod(index, 128)
        shift, place = divmod(rest, 32)
        low[:, part * 32 + place] |= ((flat[:, index] & 3) << 2 * shift).astype(np.uint8)
        mask[:, place] |= ((flat[:, index] >> 2) << (4 * part + shift)).astype(np.uint8)
    packed = np.zeros((len(blocks), 12), np.uint8)
    for index in range(16):
        packed[:, index % 8] |= (six[:, index] & 15) << (4 * (index // 8))
        packed[:, 8 + index % 4] |= (six[:, index] >> 4) << (2 * (index // 4))
    return np.concatenate([mask, low, packed, halves(d)], 1)


def six_bits(scales: Bytes, minima: Bytes) -> Bytes:
    """Pack 8 scales and 8 minima into 12 bytes: the inverse of get_scale_min_k4."""
    packed = np.zeros((len(scales), 12), np.uint8)
    for index in range(4):
        packed[:, index] = scales[:, index] | scales[:, index + 4] >> 4 << 6
        packed[:, index + 4] = minima[:, index] | minima[:, index + 4] >> 4 << 6
        packed[:, index + 8] = scales[:, index + 4] & 15 | (minima[:, index + 4] & 15) << 4
    return packed


def q4_k(blocks: Floats) -> Bytes:
    d, dmin, scales, minima, codes = with_minimum(blocks.reshape(-1, 8, 32), 15, 63)
    packed = np.concatenate([codes[:, 2 * i] | codes[:, 2 * i + 1] << 4 for i in range(4)], 1).astype(np.uint8)
    return np.concatenate([halves(d, dmin), six_bits(scales, minima), packed], 1)


def q5_k(blocks: Floats) -> Bytes:
    d, dmin, scales, minima, codes = with_minimum(blocks.reshape(-1, 8, 32), 31, 63)
    low, high = codes & 15, codes >> 4
    packed = np.concatenate([low[:, 2 * i] | low[:, 2 * i + 1] << 4 for i in range(4)], 1).astype(np.uint8)
    plane = sum(high[:, group] << group for group in range(8))
    return np.concatenate([halves(d, dmin), six_bits(scales, minima), np.uint8(plane), packed], 1)


def q6_k(blocks: Floats) -> Bytes:
    d, scales, codes = symmetric(blocks.reshape(-1, 16, 16), 31, -32, 127)
    flat = codes.reshape(-1, 256) + 32
    low, high = np.zeros((len(blocks), 128), np.uint8), np.zeros((len(blocks), 64), np.uint8)
    for index in range(256):
        part, rest = divmod(index, 128)
        quarter, place = divmod(rest, 32)
        low[:, part * 64 + place + 32 * (quarter % 2)] |= ((flat[:, index] & 15) << 4 * (quarter // 2)).astype(np.uint8)
        high[:, part * 32 + place] |= ((flat[:, index] >> 4) << 2 * quarter).astype(np.uint8)
    return np.concatenate([low, high, scales, halves(d)], 1)


def nearest(scaled: Floats) -> npt.NDArray[np.int64]:
    indices: npt.NDArray[np.int64] = np.abs(scaled[..., None] - IQ4).argmin(-1)
    return indices


def iq4_nl(blocks: Floats) -> Bytes:
    d: Floats = (np.abs(blocks).max(1) / 127).astype(np.float16).astype(np.float32)
    scaled: Floats = (blocks / np.maximum(d, 1e-8)[:, None]).astype(np.float32)
    codes = nearest(scaled)
    return np.concatenate([halves(d), (codes[:, :16] | codes[:, 16:] << 4).astype(np.uint8)], 1)


def iq4_xs(blocks: Floats) -> Bytes:
    groups = blocks.reshape(-1, 8, 32)
    d, scales, _ = symmetric(groups, 127, -127, 31)
    scaled: Floats = (groups / (d[:, None] * scales)[..., None]).astype(np.float32)
    codes, six = nearest(scaled), (scales + 32).astype(np.uint16)
    high, low = np.zeros(len(blocks), np.uint16), np.zeros((len(blocks), 4), np.uint8)
    for index in range(8):
        high |= (six[:, index] >> 4) << (2 * index)
        low[:, index // 2] |= ((six[:, index] & 15) << (4 * (index % 2))).astype(np.uint8)
    packed = (codes[..., :16] | codes[..., 16:] << 4).astype(np.uint8).reshape(len(blocks), -1)
    return np.concatenate([halves(d), high[:, None].view(np.uint8), low, packed], 1)


PACKERS: dict[str, Callable[[Floats], Bytes]] = {
    "Q2_K": q2_k,
    "Q3_K": q3_k,
    "Q4_K": q4_k,
    "Q5_K": q5_k,
    "Q6_K": q6_k,
    "IQ4_NL": iq4_nl,
    "IQ4_XS": iq4_xs,
}
