"""The blocks of GGUF's quantized types, unpacked into codes and scales.

Each function takes blocks as bytes [B, bytes of a block]. Products of scales are rounded to float32 where llama.cpp's
reference (dequantize_row_* in ggml-quants.c) rounds them, so that numbers agree with it to the last bit.
"""

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Codes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

FOUR = np.uint8(4)
IQ4_VALUES = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113])
"""The 16 numbers of IQ4_NL and IQ4_XS (kvalues_iq4nl)."""
MXFP4_VALUES = np.array([0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12])
"""Twice the numbers of E2M1 (OCP Microscaling Formats 1.0); the scale is half the block's power of two."""


def scale_first(blocks: Bytes) -> tuple[Floats, None]:
    """A float16 scale in front."""
    return _halves(blocks, 0), None


def scale_last(blocks: Bytes) -> tuple[Floats, None]:
    """A float16 scale at the end."""
    return _halves(blocks, blocks.shape[1] - 2), None


def scale_and_minimum(blocks: Bytes) -> tuple[Floats, Floats]:
    """A float16 scale and the float16 number of code 0."""
    return _halves(blocks, 0), _halves(blocks, 2)


def q4_0_codes(blocks: Bytes) -> Codes:
    return _nibbles(blocks[:, 2:], 16)


def q4_1_codes(blocks: Bytes) -> Codes:
    return _nibbles(blocks[:, 4:], 16)


def q5_0_codes(blocks: Bytes) -> Codes:
    return _nibbles(blocks[:, 6:], 16) | _bits(blocks[:, 2:6]) << FOUR


def q5_1_codes(blocks: Bytes) -> Codes:
    return _nibbles(blocks[:, 8:], 16) | _bits(blocks[:, 4:8]) << FOUR


def q8_0_codes(blocks: Bytes) -> Codes:
    return blocks[:, 2:] ^ np.uint8(0x80)  # int8 + 128


def q2_k_codes(blocks: Bytes) -> Codes:
    return _planes(blocks[:, 16:80], (0, 2, 4, 6), 32, 3)


def q2_k_scales(blocks: Bytes) -> tuple[Floats, Floats]:
    """Byte i has the scale of group i in its low half, and the minimum in its high half."""
    scale, minimum = _halves(blocks, 80), _halves(blocks, 82)
    packed = blocks[:, :16]
    return scale * (packed & 15).astype(np.float32), -(minimum * (packed >> 4).astype(np.float32))


def q3_k_codes(blocks: Bytes) -> Codes:
    """Two low bits in ``qs``; the third is set in ``hmask``, a bit for each 32 numbers."""
    low = _planes(blocks[:, 32:96], (0, 2, 4, 6), 32, 3)
    high = _planes(blocks[:, :32], range(8), 32, 1)
    return low | high << np.uint8(2)


def q3_k_scales(blocks: Bytes) -> tuple[Floats, None]:
    """16 scales of 6 bits: four low ones in halves of 8 bytes, two high ones in quarters of 4."""
    packed = blocks[:, 96:108]
    low = np.concatenate([packed[:, :8] & 15, packed[:, :8] >> 4], axis=1)
    high = np.concatenate([packed[:, 8:] >> shift & 3 for shift in (0, 2, 4, 6)], axis=1)
    scales: Floats = (low | high << 4).astype(np.float32) - np.float32(32)
    return _halves(blocks, 108) * scales, None


def q4_k_codes(blocks: Bytes) -> Codes:
    return _nibbles(blocks[:, 16:], 32)


def q5_k_codes(blocks: Bytes) -> Codes:
    return _nibbles(blocks[:, 48:], 32) | _planes(blocks[:, 16:48], range(8), 32, 1) << FOUR


def q4_k_scales(blocks: Bytes) -> tuple[Floats, Floats]:
    """8 scales and 8 minima of 6 bits in 12 bytes (get_scale_min_k4)."""
    first, second, third = blocks[:, 4:8], blocks[:, 8:12], blocks[:, 12:16]
    scales = np.concatenate([first & 63, third & 15 | first >> 2 & 48], axis=1)
    minima = np.concatenate([second & 63, third >> 4 | second >> 2 & 48], axis=1)
    scale, minimum = _halves(blocks, 0), _halves(blocks, 2)
    return scale * scales.astype(np.float32), -(minimum * minima.astype(np.float32))


def q6_k_codes(blocks: Bytes) -> Codes:
    return _nibbles(blocks[:, :128], 64) | _planes(blocks[:, 128:192], (0, 2, 4, 6), 32, 3) << FOUR


def q6_k_scales(blocks: Bytes) -> tuple[Floats, None]:
    scales = np.ascontiguousarray(blocks[:, 192:208]).view(np.int8)
    return _halves(blocks, 208) * scales.astype(np.float32), None


def iq4_nl_codes(blocks: Bytes) -> Codes:
    return _looked_up(IQ4_VALUES + 128, _nibbles(blocks[:, 2:], 16))


def iq4_xs_codes(blocks: Bytes) -> Codes:
    return _looked_up(IQ4_VALUES + 128, _nibbles(blocks[:, 8:], 16))


def iq4_xs_scales(blocks: Bytes) -> tuple[Floats, None]:
    """8 scales of 6 bits: four low ones in 4 bytes, two high ones in a 16-bit number."""
    low = np.stack([blocks[:, 4:8] & 15, blocks[:, 4:8] >> 4], axis=2).reshape(-1, 8)
    high = np.stack([blocks[:, 2:4] >> shift & 3 for shift in (0, 2, 4, 6)], axis=2).reshape(-1, 8)
    scales: Floats = (low | high << 4).astype(np.float32) - np.float32(32)
    return _halves(blocks, 0) * scales, None


def tq1_0_codes(blocks: Bytes) -> Codes:
    """Five numbers of three values in a byte, as the digits of a fraction; four in each of the last four bytes."""
    digits = []
    for part, count in ((blocks[:, :32], 5), (blocks[:, 32:48], 5), (blocks[:, 48:52], 4)):
        powers = np.array([3**power for power in range(count)], np.uint8)
        shifted = part[:, None, :] * powers[:, None]  # modulo 256
        digits.append((shifted.astype(np.uint16) * 3 >> 8).astype(np.uint8).reshape(len(blocks), -1))
    return np.concatenate(digits, axis=1)


def tq2_0_codes(blocks: Bytes) -> Codes:
    return _planes(blocks[:, :64], (0, 2, 4, 6), 32, 3)


def mxfp4_codes(blocks: Bytes) -> Codes:
    return _looked_up(MXFP4_VALUES + 12, _nibbles(blocks[:, 1:], 16))


def mxfp4_scales(blocks: Bytes) -> tuple[Floats, None]:
    """A power of two, 2**(e - 128); the two smallest are denormal."""
    exponent = blocks[:, :1].astype(np.uint32)
    normal = np.maximum(exponent, 2) - 1 << 23
    return np.where(exponent < 2, np.uint32(0x00200000) << exponent, normal).astype(np.uint32).view(np.float32), None


def _halves(blocks: Bytes, start: int) -> Floats:
    """A float16 at byte ``start``, float32 [B, 1]."""
    return np.ascontiguousarray(blocks[:, start : start + 2]).view("<f2").astype(np.float32)


def _nibbles(packed: Bytes, run: int) -> Codes:
    """Each ``run`` bytes hold ``run`` codes in their low halves, and the following ``run`` in their high halves."""
    parts = packed.reshape(len(packed), -1, 1, run)
    codes = np.concatenate([parts & np.uint8(15), parts >> np.uint8(4)], axis=2)
    return codes.reshape(len(packed), -1).view(np.uint8)


def _planes(packed: Bytes, shifts: "tuple[int, ...] | range", run: int, mask: int) -> Codes:
    """Each ``run`` bytes hold ``run`` codes at each shift in turn."""
    parts = packed.reshape(len(packed), -1, 1, run)
    codes = np.concatenate([parts >> np.uint8(shift) & np.uint8(mask) for shift in shifts], axis=2)
    return codes.reshape(len(packed), -1).view(np.uint8)


def _bits(packed: Bytes) -> Codes:
    """The bits of each byte, the lowest first."""
    return np.unpackbits(packed, axis=1, bitorder="little")


def _looked_up(values: npt.NDArray[np.int64], indices: Codes) -> Codes:
    return values.astype(np.uint8)[indices]
