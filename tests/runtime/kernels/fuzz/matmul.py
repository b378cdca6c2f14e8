"""MatMulNBits and MergedMatMulNBits: random cases, and their results from numpy."""

from dataclasses import dataclass, replace

import numpy as np
from intaglio.runtime import kernels

from .case import Array, Case, InvalidError, Value, check_close, need

MATRIX = 5  # inputs of a matrix: codes, scales, zero points, bias, low bits
CODES, SCALES, ZERO_POINTS, GROUP_INDEX, BIAS, LOW_BITS = range(1, 7)  # inputs of MatMulNBits
FIVE_BITS = 5
LOW_STEP = 32  # elements of 5 bits whose lowest bits are together
SKIP, NORM, MATRICES = 1, 2, 3  # inputs of MergedMatMulNBits
ATTRIBUTES = ("N", "K", "bits", "block_size", "accuracy_level")
SPAN = 128  # weights of a row that share a scale if they are repacked
LEAST = 2.0**-120  # of a step of x
LEAST_SPAN = 2.0**-100
MOST = 1e30  # of a gate: beyond 2^126, silu of its negative is no 0
MOST_SQUARED = 1e18  # a number whose square float32 does not overflow with
REPACKING = ("AMX", "AVX512-VNNI")  # the instructions with kernels for it
STEP = 64  # elements of x that share a scale then
LONG = 64  # rows of a sequence from which on weights are repacked


@dataclass(frozen=True)
class Matrix:
    """Dequantized weights."""

    weights: Array  # [N, K]
    repacked: Array | None  # [N, K], as for long sequences; None where they are not repacked
    bias: Array | None
    block: int


@dataclass(frozen=True)
class Product:
    """y = x · Wᵀ + bias in float64, and how far a right result may be from it."""

    y: Array
    error: Array


# ---- drawing -------------------------------------------------------------------------------------------------------


def draw_format(random: np.random.Generator, blocks: list[int]) -> tuple[int, int]:
    """Return a number of bits and a block size."""
    bits = int(random.choice([4, FIVE_BITS, 8]))
    return bits, int(random.choice([block for block in blocks if bits != FIVE_BITS or block >= LOW_STEP]))


def draw_matrix(random: np.random.Generator, n: int, k: int) -> tuple[dict[str, int], list[Value | None]]:
    """Return the attributes and inputs of a matrix."""
    bits, block = draw_format(random, [16, 32, 64, 128, 256])
    blocks = -(-k // block)
    codes = random.integers(0, 256, (n, blocks, block * (8 if bits == 8 else 4) // 8), dtype=np.uint8)
    low_bits = random.integers(0, 256, (n, blocks, block // 8), dtype=np.uint8) if bits == FIVE_BITS else None
    scales = random.uniform(-0.02, 0.02, (n, blocks)).astype(np.float16)
    if random.random() < 0.2:
        scales.flat[random.integers(scales.size)] = random.choice([0, 6e-8, 1e-5, 2])
    stored = scales if random.random() < 0.5 else scales.astype(np.float32)
    if stored.dtype == np.float32 and random.random() < 0.5:  # float16 does not hold them
        stored = stored * random.uniform(0.5, 2, stored.shape).astype(np.float32)
        if random.random() < 0.2:
            stored.flat[random.integers(stored.size)] = random.choice([1e20, 1e-20, 1e-35, 1e-42])
    if random.random() < 0.5:
        stored = stored.reshape(-1)
    zeros = None
    if random.random() < 0.5:
        zeros = random.integers(0, 256, (n, -(-blocks // 2) if bits == 4 else blocks), dtype=np.uint8)
        zeros = zeros.reshape(-1) if random.random() < 0.5 else zeros
    bias = random.normal(size=n).astype(np.float32) if random.random() < 0.5 else None
    arrays = (codes, stored, zeros, bias, low_bits)
    values = [None if array is None else Value(array, True, draw_offset(random)) for array in arrays]
    return {"N": n, "K": k, "bits": bits, "block_size": block, "accuracy_level": 4}, values


def draw_offset(random: np.random.Generator) -> int | None:
    """Return where external data begins after a multiple of 64, or None for data in the model itself."""
    return None if random.random() < 0.7 else 8 * int(random.integers(8))


def draw_x(random: np.random.Generator, k: int, most: int = 150) -> Array:
    rows = int(random.integers(0, most)) if random.random() < 0.5 else int(random.integers(0, 14))
    shapes = [(1, rows, k), (rows, k), (rows, 1, k), (2, rows // 2, k), (2, 1, rows // 2, k), (k,)]
    shape = shapes[int(random.choice(len(shapes), p=[0.5, 0.2, 0.1, 0.1, 0.05, 0.05]))]
    x = np.asarray(random.normal(size=shape) * random.choice([1.0, 1.0, 30.0, 1e-3]), dtype=np.float32)
    if x.size and random.random() < 0.2:
        x.flat[random.integers(x.size)] = random.choice([0, np.nan, np.inf, -np.inf, 1e-40, 1e4])
    return x


def draw_size(random: np.random.Generator, most: int) -> int:
    return int(random.integers(1, most if random.random() < 0.3 else 70))


def draw(random: np.random.Generator) -> Case:
    n, k = draw_size(random, 400), draw_size(random, 1200)
    attributes, (codes, scales, zeros, bias, low_bits) = draw_matrix(random, n, k)
    inputs = (Value(draw_x(random, k)), codes, scales, zeros, None, bias, low_bits)
    return Case("MatMulNBits", attributes, inputs if low_bits is not None else inputs[:-1], (True,))


def draw_merged(random: np.random.Generator) -> Case:
    """Draw products of one input, or SwiGLU, with or without a norm."""
    k, hidden = draw_size(random, 500), draw_size(random, 200)
    swiglu = int(random.random() < 0.5)
    count = int(random.integers(1 + swiglu, 4))
    attributes: dict[str, int | float] = {"matrices": count, "swiglu": swiglu}
    x = draw_x(random, k)
    inputs: list[Value | None] = [Value(x), None, None]
    if random.random() < 0.6:
        norm = random.uniform(0.5, 2, k).astype(np.float32)
        inputs[NORM] = Value(norm, True, draw_offset(random))
        attributes["epsilon"] = float(random.choice([1e-5, 1e-6, 0.1]))
        if random.random() < 0.6:
            inputs[SKIP] = Value(random.normal(size=x.shape).astype(np.float32))
    for number in range(count):
        n = hidden if swiglu and number < 2 else draw_size(random, 150)
        own, values = draw_matrix(random, n, hidden if swiglu and number == 2 else k)
        attributes |= {f"{name}{number}": value for name, value in own.items()}
        inputs += values
    outputs = 1 if swiglu else count
    given = tuple(index < outputs for index in range(3))
    return Case("MergedMatMulNBits", attributes, tuple(inputs), (*given, inputs[SKIP] is not None))


# ---- results -------------------------------------------------------------------------------------------------------


def joined(upper: Array, low_bits: Array) -> Array:
    """Return elements of 5 bits, which are those of 8 with three zeros, from their upper four bits [..., k]."""
    words = low_bits.reshape(*upper.shape[:-1], -1, 1, 4) >> np.arange(8, dtype=np.uint8)[:, None]
    return np.asarray(upper.astype(np.uint8) << 4 | (words & 1).reshape(upper.shape) << 3)


def read_matrix(case: Case, suffix: str, first: int, bias: int, low: int) -> Matrix:
    """Check a matrix's attributes and inputs against the specification, and dequantize it.

    Raises:
        InvalidError: they do not agree.
    """
    n, k, bits = case.integer(f"N{suffix}"), case.integer(f"K{suffix}"), case.integer(f"bits{suffix}", 4)
    block = case.integer(f"block_size{suffix}")
    five = bits == FIVE_BITS
    need(bits in (4, 5, 8) and block in (16, 32, 64, 128, 256), f"bits is {bits}, block_size is {block}")
    need(not five or block >= LOW_STEP, f"block_size is {block} with 5 bits")
    need(n > 0 and k > 0 and case.integer(f"accuracy_level{suffix}") == 4, f"N is {n}, K is {k}")
    codes, scales, zeros, added, low_bits = (case.get(at) for at in (first, first + 1, first + 2, bias, low))
    blocks = -(-k // block)
    need(codes is not None and scales is not None, "codes or scales are missing")
    assert codes is not None
    assert scales is not None
    need(codes.shape == (n, blocks, block * (8 if bits == 8 else 4) // 8), f"codes are {codes.shape}")
    need((low_bits is not None) == five, "low bits are missing, or not wanted")
    need(low_bits is None or low_bits.shape == (n, blocks, block // 8), "low bits do not fit")
    need(low_bits is None or low_bits.dtype == np.uint8, "low bits are no bytes")
    need(codes.dtype == np.uint8 and scales.dtype in (np.float32, np.float16), f"scales are {scales.dtype}")
    need(scales.size == n * blocks, f"scales are {scales.shape}")
    need(scales.dtype == np.float16 or bool((np.abs(scales) < 2.0**100).all()), "scales are not below 2^100")
    wide = codes.reshape(n, -1)
    middle = np.full((n, blocks), 8 if bits == 4 else 128)
    if bits != 8:
        wide = np.stack([wide & 15, wide >> 4], axis=-1).reshape(n, -1)
    if low_bits is not None:
        wide = joined(wide, low_bits.reshape(n, -1))
    if zeros is not None:
        width = -(-blocks // 2) if bits == 4 else blocks
        need(zeros.dtype == np.uint8 and zeros.size == n * width, f"zero points are {zeros.shape}")
        rows = zeros.reshape(n, width)
        middle = rows if bits != 4 else np.stack([rows & 15, rows >> 4], axis=-1).reshape(n, -1)[:, :blocks]
    need(added is None or (added.shape == (n,) and added.dtype == np.float32), "bias does not fit N")
    factor = scales.reshape(n, blocks).astype(np.float64)
    signed = wide.astype(np.int64) - np.repeat(middle.astype(np.int64), block, axis=1)
    weights = (signed * np.repeat(factor, block, axis=1))[:, :k]
    repacked = weights if bits == 8 and block >= SPAN and zeros is None else None
    if bits != 8:
        repacked = _repacked(wide, middle, factor, k, block, 8 if five else 1)
    return Matrix(weights, repacked, added, block)


def _repacked(codes: Array, zeros: Array, scales: Array, k: int, block: int, unit: int) -> Array:
    """Return weights as multiples of 1/127 of the largest number that the blocks of a span can hold (repacked.c).

    Args:
        codes: multiples of ``unit``, as zero points and scales are.
    """
    top = 15 if unit == 1 else 248
    steps, zeros = codes.astype(np.int64) // unit, zeros.astype(np.int64)
    found, wide = [], scales.astype(np.float32)
    for start in range(0, k, SPAN):
        end = min(start + SPAN, k)
        blocks = slice(start // block, -(-end // block))
        reach = np.maximum(zeros[:, blocks], top - zeros[:, blocks]).astype(np.float32)
        most = (np.abs(wide[:, blocks]) * reach).max(axis=1, keepdims=True)
        factor = np.divide(np.float32(127 * 256), most, out=np.zeros_like(most), where=most > LEAST_SPAN)
        each = np.rint(wide * np.float32(unit) * factor).astype(np.int64)
        less = np.repeat(zeros * each // unit, block, axis=1)[:, start:end]
        whole = (steps[:, start:end] * np.repeat(each, block, axis=1)[:, start:end] - less + 128) >> 8
        found.append(whole * (most.astype(np.float64) / 127))
    return np.concatenate(found, axis=1)


def multiply(x: Array, matrix: Matrix, sequence: int, given: Array | float = 0.0) -> Product:
    """Multiply rows of x, [M, K], rounded to int8 in steps as the kernels round them.

    Args:
        sequence: rows of one sequence.
        given: the error that x itself may have, [M, K].
    """
    repacked = matrix.repacked if sequence >= LONG and kernels.instructions() in REPACKING else None
    weights, step = (matrix.weights, min(matrix.block, 32)) if repacked is None else (repacked, STEP)
    k = x.shape[1]
    steps = np.pad(x.astype(np.float32), ((0, 0), (0, -k % step))).reshape(len(x), -(-k // step), step)
    most = np.abs(steps).max(axis=2, keepdims=True) if steps.size else np.zeros((len(x), 1, 1), np.float32)
    finite = np.isfinite(most)
    some = finite & (most > LEAST)
    inverse = np.divide(np.float32(127), most, out=np.zeros_like(most), where=some)
    codes = np.rint(np.where(finite, steps, 0) * inverse)
    scale = np.where(finite, most.astype(np.float64) / 127, np.nan)
    rounded = (codes * scale).reshape(len(x), codes.shape[1] * step)[:, :k]
    size = np.abs(weights)
    error = 2e-5 * (np.abs(rounded) @ size.T) + 1e-7
    if np.any(given):  # an element at the edge between two codes may become the other one
        largest = np.nan_to_num(scale.max(axis=(1, 2)) if scale.size else np.zeros(len(x)))
        error = error + np.asarray(given) @ size.T + 5 * largest[:, None] * size.max(axis=1)
    y = rounded @ weights.T
    if matrix.bias is not None:
        y, error = y + matrix.bias, error + 1e-6 * np.abs(matrix.bias)
    error = np.nan_to_num(error)
    if isinstance(given, np.ndarray):
        error[np.isinf(given).any(axis=1)] = np.inf
    return Product(y, error)


def rows_of(x: Array | None, k: int) -> Array:
    """Return x as rows of K.

    Raises:
        InvalidError: its last dimension is another.
    """
    need(x is not None and x.dtype == np.float32, "the input is missing")
    assert x is not None
    need(1 <= x.ndim <= 8 and x.shape[-1] == k, f"the input is {x.shape}, K is {k}")
    return x.reshape(int(np.prod(x.shape[:-1])), k)


def sequence_of(x: Array) -> int:
    return x.shape[-2] if x.ndim > 1 else 1


def check(case: Case, found: list[Array | None]) -> None:
    """Compare a result of MatMulNBits."""
    need(case.get(GROUP_INDEX) is None, "there is g_idx")
    matrix, x = read_matrix(case, "", CODES, BIAS, LOW_BITS), case.get(0)
    rows = rows_of(x, matrix.weights.shape[1])
    assert x is not None
    product = multiply(rows, matrix, sequence_of(x))
    _compare(found[0], product, x.shape[:-1], "y")


def _compare(found: Array | None, product: Product, front: tuple[int, ...], name: str) -> None:
    shape = (*front, product.y.shape[1])
    check_close(found, product.y.reshape(shape), product.error.reshape(shape), name)


def check_merged(case: Case, found: list[Array | None]) -> None:
    """Compare a result of MergedMatMulNBits."""
    count, swiglu = case.integer("matrices"), case.integer("swiglu") == 1
    need(1 + swiglu <= count <= 3, f"there are {count} matrices")
    matrices = [
        read_matrix(case, str(number), first, first + 3, first + 4)
        for number, first in enumerate(range(MATRICES, MATRICES + count * MATRIX, MATRIX))
    ]
    need(len(case.inputs) <= MATRICES + count * MATRIX, "there are inputs of more matrices")
    k = matrices[0].weights.shape[1]
    x, skip, norm = (case.get(index) for index in range(3))
    rows = rows_of(x, k)
    assert x is not None
    need(skip is None or (norm is not None and skip.shape == x.shape), "skip does not fit the input, or has no norm")
    need(norm is None or norm.shape == (k,), "norm does not fit K")
    need(not swiglu or matrices[0].weights.shape == matrices[1].weights.shape, "gate and up differ")
    for matrix in matrices[1:]:
        hidden = swiglu and matrix is matrices[-1] and count == 3
        need(matrix.weights.shape[1] == (len(matrices[0].weights) if hidden else k), "the matrices' K differ")
    outputs = 1 if swiglu else count
    given = [*(index < outputs for index in range(3)), skip is not None]
    for index, there in enumerate(case.outputs):
        need(not there or given[index], f"there is nothing for output {index}")
    error: Array | float = 0.0
    if norm is not None:
        rows = rows if skip is None else rows + skip.reshape(rows.shape)
        if case.outputs[3]:
            check_close(found[3], rows.reshape(x.shape).astype(np.float64), 0.0, "sum")
        rows, error = _normalized(rows, norm, case.number("epsilon", 1e-5))
    products = [multiply(rows, matrix, sequence_of(x), error) for matrix in matrices[: 2 if swiglu else 3]]
    if swiglu:
        products = [_gated(*products)]
        if count == 3:
            made = products[0]
            products = [multiply(made.y.astype(np.float32), matrices[2], sequence_of(x), made.error)]
    for index, product in enumerate(products):
        if case.outputs[index]:
            _compare(found[index], product, x.shape[:-1], f"y{index}")


def _normalized(rows: Array, norm: Array, epsilon: float) -> tuple[Array, Array]:
    wide = rows.astype(np.float64)
    with np.errstate(all="ignore"):
        made = wide / np.sqrt((wide**2).mean(axis=1, keepdims=True) + epsilon) * norm
    error = 1e-6 * np.nan_to_num(np.abs(made)) + 1e-30
    error[np.isfinite(made).all(axis=1) & (np.abs(wide) > MOST_SQUARED).any(axis=1)] = np.inf
    return made.astype(np.float32), error


def _gated(gate: Product, up: Product) -> Product:
    with np.errstate(over="ignore", invalid="ignore"):
        silu = gate.y / (1 + np.exp(-gate.y))
    y = silu * up.y
    error = np.abs(up.y) * gate.error * 1.2 + np.abs(silu) * up.error + 1.2 * gate.error * up.error + 2e-5 * np.abs(y)
    error = np.nan_to_num(error) + 1e-7
    large = (np.abs(gate.y) > MOST) | (np.abs(up.y) > MOST)
    error[np.isinf(gate.error) | np.isinf(up.error) | large] = np.inf
    return Product(y, error)


# ---- ONNX Runtime's operator ---------------------------------------------------------------------------------------


def with_float_scales(case: Case) -> Case | None:
    """Return the case for ONNX Runtime's MatMulNBits, which takes no float16 scales, in float32; it has no 5 bits."""
    if case.integer("bits", 4) == FIVE_BITS:
        return None
    scales = case.inputs[SCALES] if len(case.inputs) > SCALES else None
    if scales is None or case.inputs[0] is None:
        return None
    # Its shape inference asks for the shape of the bias, which a stored one has.
    inputs = [case.inputs[0], *(value and replace(value, stored=True) for value in case.inputs[1:])]
    if scales.array.dtype == np.float16:
        inputs[SCALES] = replace(scales, array=scales.array.astype(np.float32), stored=True)
    known = case.with_attributes(ATTRIBUTES)
    return replace(known, inputs=tuple(inputs), attributes={**known.attributes, "accuracy_level": 0})


def compare(case: Case, found: list[Array | None], theirs: list[Array | None]) -> None:
    """Compare with ONNX Runtime's product in float32: as far apart as rounding x to int8 explains."""
    matrix, x = read_matrix(case, "", CODES, BIAS, LOW_BITS), case.get(0)
    wanted = theirs[0]
    if x is None or wanted is None:
        raise InvalidError("there is no input")
    rows = x.reshape(-1, x.shape[-1]).astype(np.float64) if x.size else x.reshape(0, x.shape[-1])
    bad = np.asarray(~np.isfinite(rows).all(axis=1))
    largest = np.abs(np.where(bad[:, None], 0, rows)).max(axis=1, keepdims=True) if rows.size else rows[:, :1]
    size = np.abs(matrix.weights)
    apart = largest / 250 * size.sum(axis=1) + 1e-4 * largest * size.sum(axis=1) + 1e-5
    if matrix.repacked is not None:
        apart = apart + np.abs(np.where(bad[:, None], 0, rows)) @ np.abs(matrix.repacked - matrix.weights).T
    wide = wanted.astype(np.float64)
    flat = wide.reshape(-1, wide.shape[-1]) if wide.size else wide.reshape(0, wide.shape[-1])
    flat = np.where(bad[:, None], np.nan, flat)
    apart = np.where(np.isfinite(flat) | bad[:, None], apart, np.inf)  # it overflows
    check_close(found[0], flat.reshape(wide.shape), apart.reshape(wide.shape), "y, from ONNX Runtime's,")
