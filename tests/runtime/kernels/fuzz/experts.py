"""QMoE: random cases, and their results from numpy."""

from dataclasses import replace

import numpy as np

from .case import Array, Case, Value, check_close, need
from .matmul import draw_offset, draw_size

INPUT, LOGITS, UP, UP_SCALES, UP_BIAS, DOWN, DOWN_SCALES, DOWN_BIAS = range(8)
UP_ZEROS, DOWN_ZEROS, FC3_ZEROS, WEIGHTS = range(11, 15)
WHOLE: dict[str, int | float | str] = {
    "activation_type": "swiglu",
    "activation_alpha": 1.0,
    "activation_beta": 0.0,
    "swiglu_fusion": 1,
}
ATTRIBUTES = (*WHOLE, "k", "block_size", "expert_weight_bits", "normalize_routing_weights", "accuracy_level")
OPTIONAL: dict[str, int | float | str] = {  # attributes that are usually absent, and their only values
    "quant_type": "int",
    "use_sparse_mixer": 0,
    "swiglu_limit_after_activation": 0,
    "swiglu_limit": float("inf"),
}
MOST = 1e30  # of a gate: beyond 2^126, silu of its negative is no 0
LEAST = 2.0**-120  # of a step of x


# ---- drawing -------------------------------------------------------------------------------------------------------


def draw(random: np.random.Generator) -> Case:
    """Draw experts of random sizes, and their router's results for random tokens."""
    bits, block = int(random.choice([4, 8])), int(random.choice([16, 16, 32, 64, 128, 256]))
    experts = int(random.integers(1, 9 if random.random() < 0.7 else 40))
    hidden, inner = (block * int(random.integers(1, max(2, 160 // block + 1))) for _ in range(2))
    attributes: dict[str, int | float | str] = {
        **WHOLE,
        "k": int(random.integers(1, experts + 1)),
        "block_size": block,
        "expert_weight_bits": bits,
        "normalize_routing_weights": int(random.integers(2)),
        "accuracy_level": 4,
    }
    tokens = draw_size(random, 150) - 1
    shapes = [(1, tokens, hidden), (tokens, hidden), (tokens, 1, hidden), (2, tokens // 2, hidden)]
    shape = shapes[int(random.integers(len(shapes)))]
    tokens = int(np.prod(shape[:-1]))
    x = np.asarray(random.normal(size=shape) * random.choice([1.0, 1.0, 30.0, 1e-3]), dtype=np.float32)
    logits = np.asarray(random.normal(size=(tokens, experts)) * random.choice([1.0, 5.0]), dtype=np.float32)
    if random.random() < 0.2:
        logits = np.rint(logits)  # with equal ones
    for array in (x, logits):
        if array.size and random.random() < 0.15:
            array.flat[random.integers(array.size)] = random.choice([0, np.nan, np.inf, -np.inf, 1e-40, 1e4])
    inputs: list[Value | None] = [None] * (WEIGHTS + 1)
    inputs[INPUT], inputs[LOGITS] = Value(x), Value(logits)
    halves, zeros = random.random() < 0.5, random.random() < 0.5
    for at, zeros_at, n, k in ((UP, UP_ZEROS, 2 * inner, hidden), (DOWN, DOWN_ZEROS, hidden, inner)):
        arrays = _draw_matrices(random, (experts, n, k), bits, block, halves)
        for index, array in zip((at, at + 1, zeros_at), arrays, strict=True):
            if index != zeros_at or zeros:
                inputs[index] = Value(array, True, draw_offset(random))
    if random.random() < 0.7:
        inputs[WEIGHTS] = Value(random.uniform(0, 1, logits.shape).astype(np.float32))
    return Case("QMoE", attributes, tuple(inputs), (True,))


def _draw_matrices(
    random: np.random.Generator, shape: tuple[int, int, int], bits: int, block: int, halves: bool
) -> tuple[Array, Array, Array]:
    experts, n, k = shape
    codes = random.integers(0, 256, (experts, n, k * bits // 8), dtype=np.uint8)
    scales = random.uniform(-0.02, 0.02, (experts, n, k // block)).astype(np.float16)
    points = random.integers(0, 256, (experts, n, -(-(k // block) * bits // 8)), dtype=np.uint8)
    return codes, scales if halves else scales.astype(np.float32), points


# ---- results -------------------------------------------------------------------------------------------------------


def check(case: Case, found: list[Array | None]) -> None:
    """Compare a result, as far apart as rounding x and the hidden state to int8 explains."""
    x, logits, given = (case.get(index) for index in (INPUT, LOGITS, WEIGHTS))
    up, down = _read_matrices(case, UP, UP_ZEROS), _read_matrices(case, DOWN, DOWN_ZEROS)
    experts, hidden, k = len(up), up.shape[2], case.integer("k", 1)
    _check_attributes(case)
    need(1 <= k <= experts, f"k is {k} of {experts}")
    need(down.shape == (experts, hidden, up.shape[1] // 2) and up.shape[1] % 2 == 0, "the matrices do not fit")
    need(x is not None and x.dtype == np.float32 and x.ndim in (2, 3) and x.shape[-1] == hidden, "the input")
    assert x is not None
    rows = x.reshape(int(np.prod(x.shape[:-1])), hidden)
    for value in (logits,) if given is None else (logits, given):
        need(value is not None and value.dtype == np.float32 and value.shape == (len(rows), experts), "the router")
    assert logits is not None
    wanted, tolerance = np.zeros(rows.shape), np.zeros(rows.shape)
    for token, row in enumerate(logits):
        chosen = np.lexsort((np.arange(experts), np.where(np.isnan(row), -np.inf, row)))[::-1][:k]
        factors = _factors(row, None if given is None else given[token], chosen, case)
        y, error = _experts_of(rows[token], up[chosen], down[chosen], case)
        wanted[token] = factors @ y
        tolerance[token] = np.abs(factors) @ error + 1e-5 * (np.abs(factors) @ np.abs(y)) + 1e-7
        if np.isnan(row).any():
            wanted[token] = np.nan
    tolerance = np.where(np.isnan(tolerance) & np.isfinite(wanted), np.inf, np.nan_to_num(tolerance, nan=0.0))
    check_close(found[0], wanted.reshape(x.shape), tolerance.reshape(x.shape), "y")


def _check_attributes(case: Case) -> None:
    for name, value in (WHOLE | OPTIONAL).items():
        absent = {"activation_type": "relu", "swiglu_fusion": 0}.get(name, value)
        need(case.attributes.get(name, absent) == value, f"{name} is {case.attributes.get(name)}")
    need(case.integer("accuracy_level") == 4, "activations are float")
    need(case.integer("normalize_routing_weights") in (0, 1), "normalize_routing_weights is no truth value")
    need(all(case.get(index) is None for index in (UP_BIAS, DOWN_BIAS, 8, 9, 10, FC3_ZEROS)), "there are other inputs")


def _read_matrices(case: Case, at: int, zeros_at: int) -> Array:
    """Check the matrices' inputs against the specification, and dequantize them."""
    codes, scales, zeros = (case.get(index) for index in (at, at + 1, zeros_at))
    bits, block = case.integer("expert_weight_bits", 4), case.integer("block_size")
    need(bits in (4, 8) and block in (16, 32, 64, 128, 256), f"bits is {bits}, block_size is {block}")
    need(codes is not None and scales is not None, "codes or scales are missing")
    assert codes is not None
    assert scales is not None
    need(codes.dtype == np.uint8 and codes.ndim == 3 and codes.size > 0, f"codes are {codes.shape}")
    experts, n, k = (*codes.shape[:2], codes.shape[2] * 8 // bits)
    need(k % block == 0 and scales.shape == (experts, n, k // block), f"scales are {scales.shape}")
    need(scales.dtype in (np.float16, np.float32), f"scales are {scales.dtype}")
    need(scales.dtype == np.float16 or bool((np.abs(scales) < 2.0**100).all()), "scales are not below 2^100")
    wide = codes if bits == 8 else np.stack([codes & 15, codes >> 4], axis=-1).reshape(experts, n, k)
    middle = np.full(scales.shape, 2 ** (bits - 1))
    if zeros is not None:
        width = -(-(k // block) * bits // 8)
        need(zeros.dtype == np.uint8 and zeros.shape == (experts, n, width), f"zero points are {zeros.shape}")
        split = zeros if bits == 8 else np.stack([zeros & 15, zeros >> 4], axis=-1).reshape(experts, n, -1)
        middle = split[..., : k // block].astype(np.int64)
    signed = wide.astype(np.int64) - np.repeat(middle, block, axis=-1)
    return np.asarray(signed * np.repeat(scales.astype(np.float64), block, axis=-1))


def _factors(logits: Array, weights: Array | None, chosen: Array, case: Case) -> Array:
    if weights is None:
        power = np.exp(logits[chosen].astype(np.float64) - logits[chosen].max())
        return np.asarray(power / power.sum())
    factors = weights[chosen].astype(np.float64)
    total = factors.sum()
    return factors if case.integer("normalize_routing_weights") == 0 else factors * (1 / total if total else 0)


def _experts_of(x: Array, up: Array, down: Array, case: Case) -> tuple[Array, Array]:
    """Return the results of a token's experts, [k, D], and how far right ones may be from them."""
    rounded, _ = _rounded(x[None], case)
    both = np.einsum("knd,d->kn", up, rounded[0])
    gap = 2e-5 * np.einsum("knd,d->kn", np.abs(up), np.abs(rounded[0])) + 1e-7
    gates, ups, gate_gap, up_gap = both[:, ::2], both[:, 1::2], gap[:, ::2], gap[:, 1::2]
    silu = gates / (1 + np.exp(-gates))
    hidden = silu * ups
    error = np.abs(ups) * gate_gap * 1.2 + np.abs(silu) * up_gap + 2e-5 * np.abs(hidden) + 1e-7
    error[(np.abs(gates) > MOST) | (np.abs(ups) > MOST)] = np.inf
    codes, scale = _rounded(hidden, case)
    y = np.einsum("kdf,kf->kd", down, codes)
    # An element at the edge between two codes may become the other one.
    largest, size = np.nan_to_num(scale.max(axis=(1, 2))), np.abs(down)
    edge = 5 * largest[:, None] * size.max(axis=2)
    return y, 2e-5 * np.einsum("kdf,kf->kd", size, np.abs(codes)) + np.einsum("kdf,kf->kd", size, error) + edge


def _rounded(rows: Array, case: Case) -> tuple[Array, Array]:
    """Return rows rounded to int8 as the kernels round them, and the sizes of a code, [rows, steps, 1]."""
    step = min(case.integer("block_size"), 32)
    steps = rows.astype(np.float32).reshape(len(rows), rows.shape[1] // step, step)
    most = np.abs(steps).max(axis=2, keepdims=True)
    finite = np.isfinite(most)
    inverse = np.divide(np.float32(127), most, out=np.zeros_like(most), where=finite & (most > LEAST))
    scale = np.where(finite, most.astype(np.float64) / 127, np.nan)
    return (np.rint(np.where(finite, steps, 0) * inverse) * scale).reshape(rows.shape), scale


# ---- ONNX Runtime's operator ---------------------------------------------------------------------------------------


def theirs(case: Case) -> Case | None:
    """Return the case for ONNX Runtime's QMoE with constant weights, in float32; None where results may differ.

    It leaves out experts with a factor of at most 1e-8, and its result is not specified where a number is not finite.
    """
    x, logits, given = (case.get(index) for index in (INPUT, LOGITS, WEIGHTS))
    numbers = [value for value in (x, logits, given) if value is not None]
    if x is None or x.size == 0 or not all(np.isfinite(value).all() for value in numbers):
        return None
    if given is not None and (given < 0).any():
        return None
    inputs = [
        value if value is None or value.array.dtype != np.float16 else replace(value, array=value.array.astype("f4"))
        for value in case.inputs
    ]
    known = case.with_attributes(ATTRIBUTES)
    exact = {} if case.integer("expert_weight_bits", 4) == 8 else {"accuracy_level": 0}
    return replace(known, inputs=tuple(inputs), attributes={**known.attributes, **exact})


def compare(case: Case, found: list[Array | None], wanted: list[Array | None]) -> None:
    """Compare with ONNX Runtime's result: as far apart as rounding to int8 explains."""
    up, down = _read_matrices(case, UP, UP_ZEROS), _read_matrices(case, DOWN, DOWN_ZEROS)
    x, given, theirs = case.get(INPUT), case.get(WEIGHTS), wanted[0]
    assert x is not None
    assert theirs is not None
    rows = np.abs(x.reshape(-1, x.shape[-1]).astype(np.float64))
    sizes, most = np.abs(up).sum(axis=2), rows.max(axis=1)
    both, gap = (sizes.max(axis=0)[None] * (most * factor)[:, None] for factor in (1.0, 1 / 60))
    hidden = both[:, ::2] * both[:, 1::2]
    error = both[:, ::2] * gap[:, 1::2] + both[:, 1::2] * gap[:, ::2] + gap[:, ::2] * gap[:, 1::2] + hidden / 60
    factor = 1.0 if given is None else max(1.0, float(given.max())) * case.integer("k", 1)
    apart = factor * (error.max(axis=1)[:, None] * np.abs(down).sum(axis=2).max(axis=0)) + 1e-5
    check_close(found[0], theirs.astype(np.float64), apart.reshape(x.shape), "y, from ONNX Runtime's,")
