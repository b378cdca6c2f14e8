"""GroupQueryAttention and GroupQueryAttentionInt8: random cases, and their results from numpy."""

from dataclasses import dataclass, replace

import numpy as np
from intaglio.runtime.kernels import LONG_SEQUENCE, instructions
from numpy.typing import NDArray

from .case import Array, Case, Value, check_close, need
from .matmul import draw_offset

QUERY, KEY, VALUE, PAST_KEY, PAST_VALUE, LENGTHS, TOTAL, COS, SIN, BIAS, NORM = range(11)
MOST_SCORE = 1e9  # beyond 2^31, float32 does not resolve differences of scores that change weights
MOST = 1e30  # a number that float32 does not overflow with
INT8 = "GroupQueryAttentionInt8"
FLOAT32, BFLOAT16, INT16 = "float32", "bfloat16", "int16"
PRODUCTS = {"AMX": BFLOAT16, "AVX512-VNNI": INT16, "AVX-VNNI": INT16}
SCALE_BYTES = 4
ATTRIBUTES = (
    "num_heads",
    "kv_num_heads",
    "do_rotary",
    "local_window_size",
    "scale",
    "rotary_interleaved",
    "softcap",
    "smooth_softmax",
    "qk_output",
    "kv_cache_bit_width",
    "sliding_window_cache",
)
MARGIN = np.float32(3)  # what a key's channel varies by around its bias (append.c)
Wide = NDArray[np.float64]


def draw(random: np.random.Generator) -> Case:
    return _draw(random, "GroupQueryAttention")


def draw_int8(random: np.random.Generator) -> Case:
    return _draw(random, INT8)


def _draw(random: np.random.Generator, operator: str) -> Case:
    """Draw a prompt, a decode step or a chunk, over a cache that grows, is appended to in place, or keeps a window."""
    int8 = operator == INT8
    kv_heads, group = int(random.integers(1, 4)), int(random.choice([1, 2, 3, 7, 14]))
    heads, size = kv_heads * group, 16 * int(random.integers(1, 9 if group < 7 else 5))
    kind = random.choice(["prompt", "step", "chunk"])
    batch = 1 if kind == "chunk" else int(random.integers(1, 4))
    tokens = 1 if kind == "step" else int(random.integers(1 if kind == "prompt" else 2, 100))
    past = 0 if kind == "prompt" else int(random.integers(1, 200 if random.random() < 0.9 else 1200))
    total = past + tokens
    shared = random.random() < 0.4
    window, slides = int(random.choice([-1, -1, 1, 20, 64, 65, 130])), random.random() < 0.4
    if slides:
        window = abs(window)
        capacity = window + int(random.choice([0, 1, 63, int(random.integers(0, 200))]))
    else:
        capacity = total + int(random.integers(0, 40)) if shared else past
    lengths = np.full(batch, total, dtype=np.int32)
    if batch > 1 and kind == "prompt" and not slides:
        lengths[1:] = random.integers(1, total + 1, batch - 1)
    elif batch > 1 and kind == "step" and (shared or slides):
        lengths[1:] = random.integers(tokens, total + 1, batch - 1)
    angles = [0, size // 2, max(size // 4 // 8 * 8, 8)][int(random.integers(3))]
    packed = random.random() < 0.3
    wide, narrow = heads * size, kv_heads * size
    inputs: list[Value | None] = [None] * (11 if int8 else 9)

    def numbers(*shape: int) -> Value:
        return Value(random.normal(size=shape).astype(np.float32))

    if packed:
        inputs[QUERY] = numbers(batch, tokens, wide + 2 * narrow)
    else:
        for index, width in ((QUERY, wide), (KEY, narrow), (VALUE, narrow)):
            inputs[index] = numbers(batch, tokens, width)
    for index in (PAST_KEY, PAST_VALUE):
        rows = random.normal(size=(batch, kv_heads, capacity, size)).astype(np.float32)
        inputs[index] = Value(stored_rows(rows) if int8 else rows)
    inputs[LENGTHS] = Value(lengths - np.int32(1))
    inputs[TOTAL] = Value(np.array([total], dtype=np.int32) if random.random() < 0.7 else np.array(total, np.int32))
    if angles:
        table = np.outer(np.arange(total + int(random.integers(0, 9))), 0.7 ** np.arange(angles))
        inputs[COS] = Value(np.cos(table).astype(np.float32), True, draw_offset(random))
        inputs[SIN] = Value(np.sin(table).astype(np.float32), True, draw_offset(random))
    if int8 and random.random() < 0.7:
        index, width = [(BIAS, wide + 2 * narrow if packed else narrow), (NORM, size)][int(random.integers(2))]
        inputs[index] = Value((random.normal(size=width) * 10).astype(np.float32), True, draw_offset(random))
    attributes: dict[str, int | float] = {
        "num_heads": heads,
        "kv_num_heads": kv_heads,
        "do_rotary": int(angles > 0),
        "local_window_size": window,
        "scale": float(random.choice([0.0, 0.0, 0.3, 2.0])),
        **({"sliding_window_cache": 1} if slides else {}),
    }
    outputs = (True, True, True)
    return Case(operator, attributes, tuple(inputs), outputs, shared)


def stored_rows(rows: Array) -> Array:
    """Return rows of an int8 cache, [..., E + SCALE_BYTES]."""
    most = np.abs(rows).max(axis=-1, keepdims=True) if rows.size else rows[..., :1]
    scale = (most / np.float32(127)).astype(np.float32)
    codes = np.rint(np.divide(rows, scale, out=np.zeros_like(rows), where=scale > 0)).astype(np.int8)
    shape = (*rows.shape[:-1], SCALE_BYTES)
    return np.concatenate([codes, np.ascontiguousarray(scale).view(np.int8).reshape(shape)], axis=-1)


def read_rows(rows: Array) -> tuple[Wide, Wide]:
    """Return the rows of an int8 cache as numbers, and their scales."""
    scale = np.ascontiguousarray(rows[..., -SCALE_BYTES:]).view(np.float32).astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        return rows[..., :-SCALE_BYTES].astype(np.float64) * scale, scale


# ---- results -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Call:
    """The inputs, checked and taken apart; a key and a value as [B, K, S, E]."""

    query: Array  # [B, H, S, E]
    key: Array
    value: Array
    past: tuple[Array, Array] | None
    starts: list[int]  # of each sequence's new tokens
    rows: int  # of present
    lengths: list[int]
    firsts: list[tuple[int, int]]  # the positions of the first row in the past and in present


def read(case: Case) -> Call:
    """Check the attributes and inputs against the specification.

    Raises:
        InvalidError: they do not agree.
    """
    heads, kv_heads = case.integer("num_heads"), case.integer("kv_num_heads")
    need(heads > 0 and kv_heads > 0 and heads % kv_heads == 0, f"{heads} and {kv_heads} heads")
    window, scale = case.integer("local_window_size", -1), case.number("scale")
    need(window == -1 or window > 0, f"the window is {window}")
    need(scale >= 0, f"the scale is {scale}")
    slides = case.integer("sliding_window_cache")
    need(slides in (0, 1), "sliding_window_cache is no truth value")
    need(case.integer("do_rotary") in (0, 1), "do_rotary is no truth value")
    query, key, value = (case.get(index) for index in (QUERY, KEY, VALUE))
    need(query is not None and query.ndim == 3 and query.dtype == np.float32, "the query has no three dimensions")
    assert query is not None
    need((key is None) == (value is None), "key or value is missing")
    batch, tokens, width = query.shape
    all_heads = heads if key is not None else heads + 2 * kv_heads
    need(width % all_heads == 0, f"{width} columns for {all_heads} heads")
    size = width // all_heads
    need(size % 16 == 0 and 16 <= size <= 256, f"heads of {size}")
    if key is None or value is None:
        key = query[..., heads * size : (heads + kv_heads) * size]
        value, query = query[..., (heads + kv_heads) * size :], query[..., : heads * size]
    for array in (key, value):
        need(array.shape == (batch, tokens, kv_heads * size), f"key or value is {array.shape}")
    lengths, total = case.get(LENGTHS), case.get(TOTAL)
    need(lengths is not None and total is not None, "seqlens_k or total_sequence_length is missing")
    assert lengths is not None
    assert total is not None
    need(lengths.dtype == total.dtype == np.int32 and lengths.size == batch and total.size == 1, "the lengths' shapes")
    pasts = [case.get(index) for index in (PAST_KEY, PAST_VALUE)]
    need((pasts[0] is None) == (pasts[1] is None), "a past is missing")
    columns = size + SCALE_BYTES if case.operator == INT8 else size
    capacity = 0
    if pasts[0] is not None and pasts[1] is not None:
        capacity = pasts[0].shape[2] if pasts[0].ndim == 4 else -1
        for given in (pasts[0], pasts[1]):
            need(given.shape == (batch, kv_heads, capacity, columns), f"a past is {given.shape}")
            need(given.dtype == (np.int8 if case.operator == INT8 else np.float32), f"a past is {given.dtype}")
    whole = int(total.reshape(-1)[0])
    need(whole > 0, "total_sequence_length is not positive")
    prompt = tokens == whole
    need(prompt or tokens <= 1 or batch <= 1, "several tokens follow a past in a batch")
    ends = [int(last) + 1 for last in lengths.reshape(-1)]
    starts = [0 if prompt and not slides else end - tokens for end in ends]
    for start, end in zip(starts, ends, strict=True):
        need(0 < end <= whole and start >= 0 and (slides or start <= capacity), f"a sequence of {end} tokens")
    firsts = [(0, 0)] * batch
    if slides:
        need(pasts[0] is not None and 0 < window <= capacity, f"a cache of {capacity} for a window of {window}")
        firsts = [(_first(start, window, capacity), _first(start + tokens, window, capacity)) for start in starts]
    if case.integer("do_rotary") == 1:
        cos, sin = case.get(COS), case.get(SIN)
        need(cos is not None and sin is not None and cos.ndim == 2, "the tables of angles are missing")
        assert cos is not None
        assert sin is not None
        need(cos.shape == sin.shape and len(cos) >= whole and 2 * cos.shape[1] <= size, f"the tables are {cos.shape}")
    bias, norm = case.get(BIAS), case.get(NORM)
    need(bias is None or norm is None, "both bias and norm are given")
    biases = (all_heads if all_heads > heads else kv_heads) * size
    need(bias is None or bias.shape == (biases,), "the bias does not fit the keys")
    need(norm is None or norm.shape == (size,), "the norm does not fit the keys")
    past = None if pasts[0] is None or pasts[1] is None else (pasts[0], pasts[1])
    split = [x.reshape(batch, tokens, -1, size).swapaxes(1, 2) for x in (query, key, value)]
    return Call(split[0], split[1], split[2], past, starts, capacity if slides else max(capacity, whole), ends, firsts)


def _first(total: int, window: int, capacity: int) -> int:
    """Return the position of the first row of a cache that keeps a window (ONNX Runtime, ContribOperators.md)."""
    dropped = capacity - window + 1
    return 0 if total <= capacity else dropped * -(-(total - capacity) // dropped)


def key_scales(case: Case, call: Call) -> Array:
    """Return the divisors of the keys of an int8 cache, [K, E]."""
    kv_heads, size = call.key.shape[1], call.key.shape[3]
    bias, norm = case.get(BIAS), case.get(NORM)
    if bias is None and norm is None:
        return np.ones((kv_heads, size), np.float32)
    if norm is not None:
        found = np.broadcast_to(np.abs(norm), (kv_heads, size)).copy()
    else:
        assert bias is not None
        before = call.query.shape[1] * size if case.get(KEY) is None else 0
        found = np.abs(bias[before : before + kv_heads * size]).reshape(kv_heads, size) + MARGIN
    found = np.asarray(np.maximum(found, np.finfo(np.float32).tiny))
    cos = case.get(COS)
    if case.integer("do_rotary") == 1 and cos is not None:
        half = cos.shape[1]
        larger = np.maximum(found[:, :half], found[:, half : 2 * half])
        found[:, :half] = found[:, half : 2 * half] = larger
    return found


def _rotated(case: Case, x: Array, start: int) -> Wide:
    """Return queries or keys of one sequence, [heads, S, E]."""
    wide = x.astype(np.float64)
    cos, sin = case.get(COS), case.get(SIN)
    if case.integer("do_rotary") != 1 or cos is None or sin is None:
        return wide
    half, at = cos.shape[1], slice(start, start + x.shape[1])
    a, b = wide[..., :half], wide[..., half : 2 * half]
    made = wide.copy()
    made[..., :half], made[..., half : 2 * half] = a * cos[at] - b * sin[at], b * cos[at] + a * sin[at]
    return made


def check(case: Case, found: list[Array | None]) -> None:
    """Compare the cache, and attention over it."""
    call, int8 = read(case), case.operator == INT8
    batch, heads, tokens, size = call.query.shape
    kv_heads = call.key.shape[1]
    y, present = found[0], found[1:]
    need(case.outputs[0], "there is no output")
    if batch * tokens == 0:
        check_close(y, np.zeros((batch, tokens, heads * size)), 0.0, "y")
        if call.past is not None:
            for cache, given in zip(present, call.past, strict=True):
                if cache is not None and call.rows == given.shape[2]:
                    check_close(cache, given.astype(np.float64), 0.0, "present")
        return
    scales = key_scales(case, call).astype(np.float64) if int8 else np.ones((kv_heads, size))
    window, factor = case.integer("local_window_size", -1), case.number("scale") or 1 / np.sqrt(size)
    wanted, error = np.zeros((batch, tokens, heads, size)), np.zeros((batch, tokens, heads, size))
    for row in range(batch):
        start = call.starts[row]
        new = (_rotated(case, call.key[row], start) / scales[:, None], call.value[row].astype(np.float64))
        both = []
        for index in range(2):
            both.append(_check_cache(case, call, row, new[index], present[index], index, int8))
        queries = _rotated(case, call.query[row], start) * np.repeat(scales, heads // kv_heads, axis=0)[:, None]
        wanted[row], error[row] = _attend(queries, both[0], both[1], start - call.firsts[row][0], window, factor)
    flat = (batch, tokens, heads * size)
    check_close(y, wanted.reshape(flat), error.reshape(flat), "y")


def _check_cache(case: Case, call: Call, row: int, new: Wide, present: Array | None, index: int, int8: bool) -> Wide:
    """Compare one sequence's part of present; return the past and the new rows as numbers, [K, n, E]."""
    start, (past_first, first) = call.starts[row], call.firsts[row]
    name = ("present_key", "present_value")[index]
    stored = None if call.past is None else call.past[index][row][:, : start - past_first]
    old = new[:, :0] if stored is None else read_rows(stored)[0] if int8 else stored.astype(np.float64)
    whole = np.concatenate([old, new], axis=1)
    if present is None:
        return np.full_like(whole, np.inf) if int8 else whole  # how an int8 cache is rounded is not known then
    shape = (len(call.lengths), new.shape[0], call.rows, present.shape[-1])
    if present.shape != shape:
        check_close(present, np.zeros(shape), 0.0, name)
    kept, dropped = max(start - first, 0), max(first - start, 0)  # of the past, and of the new rows
    ours = present[row][:, : start + new.shape[1] - first]
    if stored is not None and kept:
        same = stored[:, first - past_first :]
        if not np.array_equal(ours[:, :kept], same, equal_nan=not int8):
            check_close(ours[:, :kept], same.astype(np.float64), 0.0, name)
    new = new[:, dropped:]
    if not int8:
        check_close(ours[:, kept:], new, 2e-6 * np.abs(new) + 3e-6, name)
        return whole
    held, scale = read_rows(ours)
    rounding = np.where(np.abs(new).max(axis=-1, keepdims=True) < MOST, 0.505 * scale[:, kept:] + 1e-6, np.inf)
    check_close(held[:, kept:], new, rounding, name)
    whole[:, start - past_first : start - past_first + dropped] = np.inf  # nor how these were
    whole[:, start - past_first + dropped :] = held[:, kept:]
    return whole


def products(tokens: int) -> str:
    """Return the type of a pass' products: those of a long sequence may be rounded."""
    return PRODUCTS.get(instructions() or "", FLOAT32) if tokens >= LONG_SEQUENCE else FLOAT32


def _attend(queries: Wide, keys: Wide, values: Wide, start: int, window: int, factor: float) -> tuple[Wide, Wide]:
    """Return attention of one sequence as [S, H, E], and how far a right result may be from it."""
    group, tokens = len(queries) // len(keys), queries.shape[1]
    keys, values = np.repeat(keys, group, axis=0), np.repeat(values, group, axis=0)
    with np.errstate(all="ignore"):
        scores = queries @ keys.swapaxes(1, 2) * factor
        size = np.abs(queries) @ np.abs(keys).swapaxes(1, 2) * factor
        position, at = np.arange(start, start + tokens)[:, None], np.arange(keys.shape[1])[None]
        hidden = (at > position) | ((window > 0) & (at <= position - window))
        masked = np.where(hidden, -np.inf, scores)
        weights = np.exp(masked - masked.max(axis=-1, keepdims=True))
        weights = weights / weights.sum(axis=-1, keepdims=True)
        y = weights @ values
        if products(tokens) == INT16:
            error = _error_of_int16(queries, keys, values, weights, hidden, factor)
        else:
            # A score's rounding error, relative to the sum of its products' sizes, changes its weight by that factor.
            most = np.where(hidden, 0, size).max(axis=-1)[..., None]
            own, each = (6.2e-3, 1e-4) if products(tokens) == BFLOAT16 else (3e-6, 1e-6)
            error = (weights @ np.abs(values)) * np.minimum(own + each * most, 2.0) + 1e-6
    if not ((np.abs(values) < MOST).all() and (size < MOST_SCORE).all()):
        # A weight of 0 times a number that is not finite is not 0, for queries that do not see the key as well.
        y, error = np.zeros_like(y), np.full_like(y, np.inf)
    return y.swapaxes(0, 1), np.nan_to_num(error, nan=np.inf, posinf=np.inf).swapaxes(0, 1)


def _error_of_int16(
    queries: Wide, keys: Wide, values: Wide, weights: Wide, hidden: NDArray[np.bool_], factor: float
) -> Wide:
    """Return how far attention with products of int16 may be from a right result, [H, S, 1].

    Numbers are rounded relative to the largest of their row, which adds up like noise.
    """
    size = keys.shape[-1]
    step = 0.5 / np.floor(np.sqrt(2**31 / size))  # of the largest element
    of_queries = np.abs(queries).max(axis=-1)[..., None] * np.linalg.norm(keys, axis=-1)[:, None]
    of_keys = np.linalg.norm(queries, axis=-1)[..., None] * np.abs(keys).max(axis=-1)[:, None]
    # A key's difference from another one may be twice as large as both.
    most = np.where(hidden, 0, of_queries + 2 * of_keys).max(axis=-1)[..., None] * step * factor
    largest = np.abs(values).max(axis=-1)[:, None]
    noise = (weights * largest).max(axis=-1)[..., None] * np.sqrt(keys.shape[1]) * 2**-12
    error: Wide = (weights @ largest.swapaxes(1, 2)) * np.minimum(2**-12 + 4 * most, 2.0) + noise + 1e-6
    return error


def theirs(case: Case) -> Case | None:
    """Return the case for ONNX Runtime's operator, which reads what nobody wrote where present is no output.

    Nothing is stored: from the shape of a stored query, it infers another shape of present than its kernel returns.
    """
    if not all(case.outputs) and case.get(PAST_KEY) is not None:
        return None
    fed = tuple(value and replace(value, stored=False) for value in case.inputs)
    return replace(case.with_attributes(ATTRIBUTES), inputs=fed)


def compare(case: Case, found: list[Array | None], theirs: list[Array | None]) -> None:
    """Compare with ONNX Runtime's, in the rows that are no padding."""
    call, y, wanted = read(case), found[0], theirs[0]
    if y is None or wanted is None or y.shape != wanted.shape:
        check_close(y, np.zeros(0) if wanted is None else wanted.astype(np.float64), 0.0, "y, from ONNX Runtime's,")
        return
    tokens, size = y.shape[1], call.query.shape[3]
    factor = case.number("scale") or 1 / np.sqrt(size)
    for row, (start, end) in enumerate(zip(call.starts, call.lengths, strict=True)):
        real = min(end - start, tokens)
        if not np.isfinite(wanted[row, :real]).all() or not np.isfinite(y[row, :real]).all():
            continue
        largest = np.abs(call.query[row]).max() * size if call.query[row].size else 0.0
        own, each = (3e-5, 2e-6) if products(tokens) == FLOAT32 else (7e-3, 1e-4)
        most = min(own + each * factor * float(largest) * 4, 1.0)
        tolerance = most * float(np.abs(wanted[row, :real]).max(initial=0.0)) + 1e-6
        if np.isfinite(tolerance):
            check_close(y[row, :real], wanted[row, :real].astype(np.float64), tolerance, "y, from ONNX Runtime's,")
