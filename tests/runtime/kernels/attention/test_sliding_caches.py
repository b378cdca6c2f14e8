"""Attention over caches that keep a window: ONNX Runtime's numbers and layout; the bits of a cache that keeps all."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from intaglio.runtime import kernels
from intaglio.runtime.kernels.edits.int8_cache import OPERATOR, SCALE_BYTES
from numpy.typing import NDArray
from onnx import TensorProto, helper

from ..fuzz.attention import BFLOAT16, FLOAT32, INT16, products
from ..one_node import open_session
from .test_attention import supported

Floats = NDArray[np.float32]
pytestmark = pytest.mark.skipif(not supported(), reason="no compiled kernels for this processor")


def tolerance(tokens: int) -> float:
    """Return the largest error of a pass, relative to the largest output."""
    return {BFLOAT16: 1e-2, INT16: 1e-3, FLOAT32: 3e-6}[products(tokens)]


HEADS, KV_HEADS, SIZE, POSITIONS = 6, 2, 32, 900
FLOAT, INT8, INT32 = TensorProto.FLOAT, TensorProto.INT8, TensorProto.INT32


@dataclass(frozen=True)
class Layer:
    """An attention; its cache has C = ``capacity`` rows, or room for all tokens where that is None."""

    window: int
    capacity: int | None
    int8: bool = False
    own: bool = True

    def session(self) -> ort.InferenceSession:
        return _session(self.window, self.capacity is not None, self.int8, self.own, kernels.instructions())

    @property
    def rows(self) -> int:
        return POSITIONS if self.capacity is None else self.capacity

    def first(self, total: int) -> int:
        """Return the position of the first row after so many tokens, as ONNX Runtime's documentation has it."""
        if self.capacity is None or total <= self.capacity:
            return 0
        dropped = self.capacity - self.window + 1
        return dropped * -(-(total - self.capacity) // dropped)


@cache
def _session(window: int, slides: bool, int8: bool, own: bool, instructions: str | None) -> ort.InferenceSession:
    stored = INT8 if int8 else FLOAT
    types = {"query": FLOAT, "key": FLOAT, "value": FLOAT, "past_key": stored, "past_value": stored}
    types |= {"seqlens": INT32, "total": INT32, "cos": FLOAT, "sin": FLOAT}
    results = {"y": FLOAT, "present_key": stored, "present_value": stored}
    attributes: dict[str, Any] = {
        "num_heads": HEADS,
        "kv_num_heads": KV_HEADS,
        "do_rotary": 1,
        "local_window_size": window,
    }
    attributes |= {"sliding_window_cache": 1} if slides else {}
    node = helper.make_node(
        OPERATOR if int8 else "GroupQueryAttention",
        list(types),
        list(results),
        domain="com.microsoft",
        **attributes,
    )
    inputs, outputs = (
        [helper.make_tensor_value_info(name, kind, None) for name, kind in each.items()] for each in (types, results)
    )
    graph = helper.make_graph([node], "attention", inputs, outputs)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    return open_session(helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString(), own)


class Texts:
    """Queries, keys and values of B texts, and the tables of angles."""

    def __init__(self, batch: int = 1, seed: int = 1) -> None:
        random = np.random.default_rng(seed)
        counts = {"query": HEADS, "key": KV_HEADS, "value": KV_HEADS}
        self.new = {
            name: random.normal(size=(batch, POSITIONS, count * SIZE)).astype(np.float32)
            for name, count in counts.items()
        }
        angles = np.outer(np.arange(POSITIONS), 0.7 ** np.arange(SIZE // 2))
        self.tables = {"cos": np.cos(angles).astype(np.float32), "sin": np.sin(angles).astype(np.float32)}

    def attention(self, window: int, row: int = 0) -> NDArray[np.float64]:
        """Return the result for a text, [POSITIONS, H * E], in float64."""
        query, key, value = (
            self.new[name][row].astype(np.float64).reshape(POSITIONS, -1, SIZE).swapaxes(0, 1)
            for name in ("query", "key", "value")
        )
        query, key = self._rotated(query), self._rotated(key)
        key, value = (np.repeat(x, HEADS // KV_HEADS, axis=0) for x in (key, value))
        distance = np.arange(POSITIONS)[:, None] - np.arange(POSITIONS)
        scores = np.where((distance < 0) | (distance >= window), -np.inf, query @ key.swapaxes(1, 2) / np.sqrt(SIZE))
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        return np.asarray((weights @ value).swapaxes(0, 1).reshape(POSITIONS, -1))

    def _rotated(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        a, b = np.split(x, 2, axis=-1)
        cos, sin = self.tables["cos"], self.tables["sin"]
        return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)


class Cache:
    """The cache of B texts, and how many tokens of each it has read."""

    def __init__(self, layer: Layer, texts: Texts, batch: int = 1, *, shared: bool = True) -> None:
        self.layer, self.texts, self.shared = layer, texts, shared
        columns = SIZE + SCALE_BYTES if layer.int8 else SIZE
        shape = (batch, KV_HEADS, layer.rows, columns)
        self.stored = [np.zeros(shape, np.int8) if layer.int8 else np.full(shape, np.nan, np.float32) for _ in range(2)]
        self.lengths = np.zeros(batch, dtype=np.int64)

    def read(self, tokens: int, rows: slice = slice(None)) -> Floats:
        """Read more tokens of some texts; return [B, S, H * E]."""
        starts = self.lengths[rows]
        total = int(starts.max()) + tokens
        feeds: dict[str, Any] = dict(self.texts.tables)
        for name, values in self.texts.new.items():
            each = zip(values[rows], starts, strict=True)
            feeds[name] = np.stack([value[start : start + tokens] for value, start in each])
        feeds |= {"seqlens": (starts + tokens - 1).astype(np.int32), "total": np.array([total], np.int32)}
        caches = [stored[rows] for stored in self.stored]
        feeds |= {"past_key": caches[0], "past_value": caches[1]}
        binding = self.layer.session().io_binding()
        for name, value in feeds.items():
            binding.bind_cpu_input(name, value)
        binding.bind_output("y", "cpu")
        for name, stored in zip(("present_key", "present_value"), caches, strict=True):
            if self.shared:
                binding.bind_output(name, "cpu", 0, stored.dtype, stored.shape, stored.ctypes.data)
            else:
                binding.bind_output(name, "cpu")
        self.layer.session().run_with_iobinding(binding)
        y, *presents = [np.array(value.numpy()) for value in binding.get_outputs()]
        if not self.shared:
            for stored, present in zip(self.stored, presents, strict=True):
                stored[rows] = present
        self.lengths[rows] += tokens
        return np.asarray(y)

    def kept(self, row: int = 0) -> list[NDArray[Any]]:
        """Return the keys and the values of a text, [K, L, E] each."""
        total = int(self.lengths[row])
        return [stored[row, :, : total - self.layer.first(total)] for stored in self.stored]


def pieces_of(total: int, seed: int) -> list[int]:
    """Divide a text at random: single tokens, a few at once, and many."""
    random = np.random.default_rng(seed)
    pieces: list[int] = []
    while (left := total - sum(pieces)) > 0:
        size = int(random.choice([1, 1, 1, 2, 5, int(random.integers(1, 30)), int(random.integers(1, 200))]))
        pieces.append(min(size, left))
    return pieces


CAPACITIES = [(1, 1), (1, 2), (7, 7), (20, 33), (64, 64), (64, 127), (100, 163), (130, 257)]


@pytest.mark.parametrize("shared", [False, True], ids=["copied", "in place"])
@pytest.mark.parametrize(("window", "capacity"), CAPACITIES)
def test_numbers_and_layout_are_those_of_onnxruntime(window: int, capacity: int, shared: bool) -> None:
    texts = Texts()
    wanted = texts.attention(window)
    for seed in range(3):
        ours, theirs = (Cache(Layer(window, capacity, own=own), texts, shared=shared) for own in (True, False))
        for tokens in pieces_of(600, seed):
            start = int(ours.lengths[0])
            found, other = ours.read(tokens), theirs.read(tokens)
            assert np.abs(found - other).max() <= 4 * tolerance(tokens)
            assert np.abs(found[0] - wanted[start : start + tokens]).max() <= 4 * tolerance(tokens)
            for mine, its in zip(ours.kept(), theirs.kept(), strict=True):
                assert np.allclose(mine, its, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(("window", "capacity"), [(20, 33), (64, 127)])
def test_texts_of_different_lengths_step_together(window: int, capacity: int) -> None:
    texts = Texts(batch=3)
    wanted = [texts.attention(window, row) for row in range(3)]
    ours, theirs = (Cache(Layer(window, capacity, own=own), texts, 3) for own in (True, False))
    for row, tokens in enumerate((150, 3, capacity)):
        for each in (ours, theirs):
            each.read(tokens, slice(row, row + 1))
    for _ in range(3 * capacity):
        starts = ours.lengths.copy()
        found, other = ours.read(1), theirs.read(1)
        assert np.abs(found - other).max() <= 1e-5
        for row, start in enumerate(starts):
            assert np.abs(found[row, 0] - wanted[row][start]).max() <= 1e-5
            for mine, its in zip(ours.kept(row), theirs.kept(row), strict=True):
                assert np.allclose(mine, its, atol=1e-6, rtol=1e-6)


def test_prompts_of_one_length_are_read_together() -> None:
    texts = Texts(batch=2)
    ours, theirs = (Cache(Layer(20, 33, own=own), texts, 2) for own in (True, False))
    for tokens in (90, 1, 1):
        assert np.abs(ours.read(tokens) - theirs.read(tokens)).max() <= 4 * tolerance(tokens)
    for mine, its in zip(ours.kept(1), theirs.kept(1), strict=True):
        assert np.allclose(mine, its, atol=1e-6, rtol=1e-6)


EXACT = [(1, 64), (6, 69), (64, 127), (100, 227), (513, 576)]
"""Windows and capacities where multiples of 64 tokens are dropped at once, as ``window_capacity`` has them."""


def read_all(cached: Cache, pieces: Sequence[int]) -> Floats:
    return np.concatenate([cached.read(tokens)[0] for tokens in pieces])


@pytest.mark.usefixtures("in_float32")
@pytest.mark.parametrize("int8", [False, True], ids=["float32", "int8"])
@pytest.mark.parametrize(("window", "capacity"), EXACT)
def test_bits_are_those_of_a_cache_that_keeps_all(window: int, capacity: int, int8: bool) -> None:
    texts = Texts()
    whole = Cache(Layer(window, None, int8), texts)
    wanted = read_all(whole, [POSITIONS])
    for seed, shared in enumerate((False, True, True, True)):
        sliding = Cache(Layer(window, capacity, int8), texts, shared=shared)
        assert np.array_equal(read_all(sliding, pieces_of(POSITIONS, seed)), wanted)
        first = sliding.layer.first(POSITIONS)
        for mine, its in zip(sliding.kept(), whole.kept(), strict=True):
            assert np.array_equal(mine, its[:, first:])


@pytest.mark.usefixtures("in_float32")
@pytest.mark.parametrize("int8", [False, True], ids=["float32", "int8"])
@pytest.mark.parametrize(("window", "capacity"), [(6, 69), (100, 227)])
def test_passes_around_the_tokens_that_drop_rows(window: int, capacity: int, int8: bool) -> None:
    """Read up to nine tokens at once, from and to each position around those at which rows are dropped."""
    texts = Texts()
    wanted = read_all(Cache(Layer(window, None, int8), texts), [POSITIONS])
    dropped = capacity - window + 1
    for full in (capacity, capacity + dropped, capacity + 2 * dropped):
        for start in range(full - 10, full + 3):
            before = Cache(Layer(window, capacity, int8), texts)
            before.read(start)
            for tokens in (1, 2, 3, 4, 8, 9):
                cached = Cache(before.layer, texts)
                cached.stored, cached.lengths = [each.copy() for each in before.stored], before.lengths.copy()
                found = np.concatenate([cached.read(tokens)[0], cached.read(1)[0], cached.read(3)[0]])
                assert np.array_equal(found, wanted[start : start + tokens + 4]), (start, tokens)


@pytest.mark.usefixtures("in_float32")
@pytest.mark.parametrize("int8", [False, True], ids=["float32", "int8"])
def test_rows_go_back_as_long_as_none_has_been_dropped(int8: bool) -> None:
    texts = Texts()
    wanted = read_all(Cache(Layer(6, None, int8), texts), [POSITIONS])
    cached = Cache(Layer(6, 69, int8), texts)
    cached.read(133)
    for back, tokens in ((132, 3), (70, 1), (71, 64), (133, 5)):
        assert cached.layer.first(back) == cached.layer.first(int(cached.lengths[0]))
        cached.lengths[0] = back
        assert np.array_equal(cached.read(tokens)[0], wanted[back : back + tokens])
        assert np.array_equal(cached.read(1)[0], wanted[back + tokens : back + tokens + 1])
        cached.lengths[0] = 0
        cached.read(133)


def test_an_int8_cache_is_near_float64() -> None:
    texts = Texts()
    found = read_all(Cache(Layer(100, 163, int8=True), texts), pieces_of(600, 2))
    assert np.abs(found - texts.attention(100)[:600]).max() <= 0.05
