"""GatherBlockQuantized: random cases, and their results from numpy."""

from dataclasses import replace

import numpy as np

from .case import Array, Case, Value, check_close, need
from .matmul import FIVE_BITS, LOW_STEP, draw_format, draw_offset, joined

DATA, INDICES, SCALES, ZERO_POINTS, LOW_BITS = range(5)
ATTRIBUTES = ("bits", "block_size", "gather_axis", "quantize_axis")


def draw(random: np.random.Generator) -> Case:
    """Draw a table in blocks, [V, blocks, bytes], or plain, [V, bytes], and indices."""
    bits, block = draw_format(random, [16, 32, 64, 128])
    rows, blocks = int(random.integers(1, 60)), int(random.integers(1, 9))
    codes = random.integers(0, 256, (rows, blocks, block * (8 if bits == 8 else 4) // 8), dtype=np.uint8)
    low_bits = random.integers(0, 256, (rows, blocks, block // 8), dtype=np.uint8)
    scales = random.uniform(-0.1, 0.1, (rows, blocks, 1)).astype(np.float16)
    if random.random() < 0.5:
        codes, scales, low_bits = codes.reshape(rows, -1), scales.reshape(rows, -1), low_bits.reshape(rows, -1)
    stored = scales if random.random() < 0.5 else scales.astype(np.float32)
    shape = [(), (5,), (1, 1), (2, 3), (0,), (40,), (1, 2, 2)][int(random.integers(7))]
    indices = random.integers(-rows, rows, shape, dtype=np.int64)
    attributes = {"bits": bits, "block_size": block, "gather_axis": 0, "quantize_axis": codes.ndim - 1}
    held = random.random() < 0.1
    inputs: tuple[Value | None, ...] = (
        Value(codes, True, draw_offset(random)),
        Value(np.asarray(indices), held, draw_offset(random) if held else None),
        Value(stored, True, draw_offset(random)),
    )
    if bits == FIVE_BITS:
        inputs = (*inputs, None, Value(low_bits, True, draw_offset(random)))
    return Case("GatherBlockQuantized", attributes, inputs, (True,))


def check(case: Case, found: list[Array | None]) -> None:
    """Compare the rows."""
    codes, indices, scales = (case.get(index) for index in range(3))
    bits, block = case.integer("bits", 4), case.integer("block_size", 128)
    need(codes is not None and indices is not None and scales is not None, "an input is missing")
    need(case.get(ZERO_POINTS) is None, "there are zero points")
    assert codes is not None
    assert indices is not None
    assert scales is not None
    low_bits = case.get(LOW_BITS)
    least = LOW_STEP if bits == FIVE_BITS else 16
    need(bits in (4, 5, 8) and block >= least and block & (block - 1) == 0, f"bits is {bits}, block_size is {block}")
    need(case.integer("gather_axis") == 0, "another axis is gathered")
    need(codes.ndim >= 2 and case.integer("quantize_axis", 1) in (codes.ndim - 1, -1), "another axis is quantized")
    width = codes.shape[-1] * (1 if bits == 8 else 2)
    need((low_bits is not None) == (bits == FIVE_BITS), "low bits are missing, or not wanted")
    need(width % block == 0 and scales.shape == (*codes.shape[:-1], width // block), "scales do not fit the table")
    need(((indices >= -len(codes)) & (indices < len(codes))).all(), "indices are out of range")
    wide = codes if bits == 8 else np.stack([codes & 15, codes >> 4], axis=-1).reshape(*codes.shape[:-1], width)
    if low_bits is not None:
        need(low_bits.dtype == np.uint8 and low_bits.shape == (*codes.shape[:-1], width // 8), "low bits do not fit")
        wide = joined(wide, low_bits)
    signed = wide.astype(np.float32) - np.float32(8 if bits == 4 else 128)
    with np.errstate(all="ignore"):
        table = signed * np.repeat(scales.astype(np.float32), block, axis=-1)
    wanted = table[indices] if len(codes) else np.zeros((*indices.shape, *table.shape[1:]), np.float32)
    check_close(found[0], wanted.astype(np.float64), 0.0, "y")


def with_float_scales(case: Case) -> Case | None:
    """Return the case for ONNX Runtime's operator, in float32; None for 5 bits, which it has not."""
    if case.integer("bits", 4) == FIVE_BITS:
        return None
    scales = case.inputs[SCALES] if len(case.inputs) > SCALES else None
    if scales is None or scales.array.dtype != np.float16:
        return case.with_attributes(ATTRIBUTES)
    inputs = list(case.inputs)
    inputs[SCALES] = replace(scales, array=scales.array.astype(np.float32))
    return replace(case.with_attributes(ATTRIBUTES), inputs=tuple(inputs))


def compare(case: Case, found: list[Array | None], theirs: list[Array | None]) -> None:
    """Compare with ONNX Runtime's rows, bit for bit."""
    assert theirs[0] is not None
    check_close(found[0], theirs[0].astype(np.float64), 0.0, "y, from ONNX Runtime's,")
