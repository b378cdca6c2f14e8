"""Intaglio's GroupQueryAttention agrees with ONNX Runtime's and refuses what it does not support."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from intaglio.runtime import kernels
from numpy.typing import NDArray
from onnx import TensorProto, helper

from ...conftest import run_session

Floats = NDArray[np.float32]
POSITIONS = 2048


def session(model: bytes, own: bool) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 2
    options.log_severity_level = 4
    if own:
        options.add_session_config_entry("intaglio.GroupQueryAttention", "1")
        options.register_custom_ops_library(str(kernels.library()))
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def supported() -> bool:
    try:
        session(Shape().model(), own=True)
    except Exception:
        return False
    return True


@dataclass(frozen=True)
class Shape:
    heads: int = 4
    kv_heads: int = 2
    size: int = 32
    window: int = -1
    angles: int | None = None  # columns of the tables; None for no rotation
    packed: bool = False
    past: bool = True
    scale: float = 0.0
    slides: bool = False  # the cache keeps the window alone

    def model(self, **attributes: Any) -> bytes:
        attributes |= {"sliding_window_cache": 1} if self.slides else {}
        names = ["query", "key", "value", "past_key", "past_value", "seqlens", "total", "cos", "sin"]
        absent = (["key", "value"] if self.packed else []) + ([] if self.angles else ["cos", "sin"])
        absent += [] if self.past else ["past_key", "past_value"]
        inputs = ["" if name in absent else name for name in names]
        while not inputs[-1]:
            inputs.pop()
        integers = ("seqlens", "total")
        values = [
            helper.make_tensor_value_info(name, TensorProto.INT32 if name in integers else TensorProto.FLOAT, None)
            for name in inputs
            if name
        ]
        outputs = ["y", "present_key", "present_value"] if self.past else ["y"]
        node = helper.make_node(
            "GroupQueryAttention",
            inputs,
            outputs,
            domain="com.microsoft",
            num_heads=self.heads,
            kv_num_heads=self.kv_heads,
            do_rotary=int(self.angles is not None),
            local_window_size=self.window,
            scale=self.scale,
            **attributes,
        )
        results = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
        graph = helper.make_graph([node], "attention", values, results)
        opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
        model: bytes = helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()
        return model


class Pair:
    """Both kernels, each with its own KV cache, for the same calls."""

    def __init__(self, shape: Shape, batch: int = 1, capacity: int = 0, shared: bool = False) -> None:
        self.shape, self.batch, self.shared = shape, batch, shared
        self._random = np.random.default_rng(7)
        self._sessions = [session(shape.model(), own) for own in (True, False)]
        empty = np.full((batch, shape.kv_heads, capacity, shape.size), np.nan, dtype=np.float32)
        self.caches = [[empty.copy(), empty.copy()] for _ in self._sessions]

    def call(self, tokens: int, lengths: list[int], total: int) -> tuple[Floats, Floats]:
        shape = self.shape
        wide, narrow = shape.heads * shape.size, shape.kv_heads * shape.size
        feeds: dict[str, Any] = {
            "seqlens": np.array(lengths, dtype=np.int32) - 1,
            "total": np.array([total], dtype=np.int32),
        }
        if shape.packed:
            feeds["query"] = self._draw(tokens, wide + 2 * narrow)
        else:
            feeds |= {"query": self._draw(tokens, wide), "key": self._draw(tokens, narrow)}
            feeds["value"] = self._draw(tokens, narrow)
        if shape.angles:
            angles = np.outer(np.arange(POSITIONS), 0.7 ** np.arange(shape.angles)).astype(np.float32)
            feeds |= {"cos": np.cos(angles), "sin": np.sin(angles)}
        found, wanted = (self._run(index, feeds) for index in range(2))
        return found, wanted

    def _run(self, index: int, feeds: dict[str, Any]) -> Floats:
        if not self.shape.past:
            return np.asarray(run_session(self._sessions[index], feeds)[0])
        caches = self.caches[index]
        feeds = feeds | {"past_key": caches[0], "past_value": caches[1]}
        if not self.shared:
            y, *self.caches[index] = run_session(self._sessions[index], feeds)
            return np.asarray(y)
        binding = self._sessions[index].io_binding()
        for name, value in feeds.items():
            binding.bind_cpu_input(name, value)
        binding.bind_output("y", "cpu")
        for name, cache in zip(("present_key", "present_value"), caches, strict=True):
            binding.bind_output(name, "cpu", 0, np.float32, cache.shape, cache.ctypes.data)
        self._sessions[index].run_with_iobinding(binding)
        return np.array(binding.get_outputs()[0].numpy())

    def _draw(self, tokens: int, width: int) -> Floats:
        return self._random.normal(size=(self.batch, tokens, width)).astype(np.float32)


pytestmark = pytest.mark.skipif(not supported(), reason="no compiled kernels for this processor")


def close(found: Floats, wanted: Floats) -> None:
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).max() <= 3e-6 * np.abs(wanted).max()


SHAPES = {
    "rotated": Shape(angles=16),
    "not rotated": Shape(),
    "partly rotated": Shape(size=64, angles=16),
    "packed": Shape(angles=16, packed=True),
    "Qwen2 0.5B": Shape(14, 2, 64, angles=32),
    "one key head for all": Shape(8, 1, 16, angles=8),
    "a key head each": Shape(3, 3, 48),
    "wide heads": Shape(2, 1, 128, angles=64),
    "heads of 80": Shape(2, 2, 80, scale=0.3),
    "window": Shape(angles=16, window=20),
    "window of one": Shape(window=1),
    "window beyond a piece": Shape(window=100, angles=16),
}


@pytest.mark.parametrize("shared", [False, True], ids=["growing", "shared"])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_prompt_chunks_and_steps(shape: Shape, shared: bool) -> None:
    pair = Pair(shape, capacity=700 if shared else 0, shared=shared)
    length = 0
    for tokens in (70, 1, 63, 1, 130, 1, 260, 1, 1):
        length += tokens
        close(*pair.call(tokens, [length], length))
    for ours, theirs in zip(*pair.caches, strict=True):
        assert np.allclose(ours[:, :, :length], theirs[:, :, :length], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_sequences_of_different_lengths(shape: Shape) -> None:
    """Pad the prompts on the right, then decode over the padding."""
    pair = Pair(shape, batch=3, capacity=160, shared=True)
    lengths = [90, 1, 33]
    found, wanted = pair.call(90, lengths, 90)
    for row, length in enumerate(lengths):
        close(found[row, :length], wanted[row, :length])
    for _ in range(5):
        lengths = [length + 1 for length in lengths]
        close(*pair.call(1, lengths, max(lengths)))


def test_without_a_cache() -> None:
    pair = Pair(Shape(angles=16, past=False), batch=2)
    found, wanted = pair.call(100, [100, 40], 100)
    close(found[0], wanted[0])
    close(found[1, :40], wanted[1, :40])


def last_row(shape: Shape, pieces: list[int], batch: int = 1) -> Floats:
    """Return the output of the last token for a prompt that is given in chunks, in a batch of copies."""
    random = np.random.default_rng(3)
    widths = [heads * shape.size for heads in (shape.heads, shape.kv_heads, shape.kv_heads)]
    inputs = [random.normal(size=(1, sum(pieces), width)).astype(np.float32) for width in widths]
    ours = session(shape.model(), own=True)
    cache = [np.zeros((batch, shape.kv_heads, 0, shape.size), dtype=np.float32)] * 2
    start, y = 0, np.empty(0, dtype=np.float32)
    for piece in pieces:
        end = start + piece
        rows = [np.repeat(x[:, start:end], batch, axis=0) for x in inputs]
        feeds: dict[str, NDArray[Any]] = dict(zip(("query", "key", "value"), rows, strict=True))
        lengths = np.full(batch, end - 1, dtype=np.int32)
        feeds |= {"past_key": cache[0], "past_value": cache[1], "seqlens": lengths}
        y, *cache = run_session(ours, feeds | {"total": np.array([end], dtype=np.int32)})
        start = end
    return np.asarray(y[0, -1])


def test_a_row_is_the_same_bit_for_bit_alone_in_a_batch_and_in_chunks() -> None:
    whole = last_row(Shape(), [300])
    for pieces, batch in (([300], 4), ([100, 200], 1), ([65, 1, 234], 1), ([299, 1], 1), ([299, 1], 3)):
        assert np.array_equal(last_row(Shape(), pieces, batch), whole)


@pytest.mark.parametrize("window", [-1, 63, 64, 65, 130])
@pytest.mark.parametrize("group", [1, 2, 3, 7, 8, 17, 50])
def test_few_rows_and_many_are_the_same_bit_for_bit(group: int, window: int) -> None:
    """Use groups up to and beyond twelve heads, and chunks that end before, at and after the key chunks' ends."""
    shape = Shape(heads=group, kv_heads=1, window=window)
    whole = last_row(shape, [193])
    for pieces in ([192, 1], [191, 2], [129, 64], [128, 65], [127, 66], [180, 13], [176, 17]):
        assert np.array_equal(last_row(shape, pieces), whole), pieces


@pytest.mark.parametrize("window", [-1, 511, 513, 700])
@pytest.mark.parametrize("group", [1, 7, 17])
def test_a_row_of_a_long_text_is_the_same_bit_for_bit(group: int, window: int) -> None:
    """Threads divide the keys of one token in parts of 512; those of several tokens have the same parts."""
    shape = Shape(heads=group, kv_heads=1, window=window)
    for total in (513, 1300):
        whole = last_row(shape, [total])
        for pieces in ([total - 1, 1], [total - 2, 2], [total - 50, 50], [500, total - 500]):
            assert np.array_equal(last_row(shape, pieces), whole), (total, pieces)


@pytest.mark.parametrize("size", range(16, 257, 16))
def test_head_sizes(size: int) -> None:
    for group in (1, 5):
        pair = Pair(Shape(heads=2 * group, size=size, window=70 if size % 32 else -1))
        for tokens, total in ((100, 100), (1, 101), (28, 129)):
            close(*pair.call(tokens, [total], total))


def test_scores_far_apart() -> None:
    """Check attention weights that underflow to 0, and later chunks whose scores are far above the earlier maximum."""
    pair = Pair(Shape(scale=300.0))
    for tokens, total in ((100, 100), (1, 101), (100, 201)):
        found, wanted = pair.call(tokens, [total], total)
        assert np.abs(found - wanted).max() <= 3e-3 * np.abs(wanted).max()  # of scores near 10,000


def test_nan_stays_in_its_row() -> None:
    ours = session(Shape(past=False).model(), own=True)
    feeds = {
        name: np.ones((2, 5, width), dtype=np.float32) for name, width in (("query", 128), ("key", 64), ("value", 64))
    }
    feeds["value"][1, 2] = np.nan
    lengths = {"seqlens": np.array([4, 4], dtype=np.int32), "total": np.array([5], dtype=np.int32)}
    y = run_session(ours, feeds | lengths)[0]
    assert np.isfinite(y[0]).all()
    assert np.isnan(y[1, 2:]).all()


REFUSED = {
    "out of range": (1, [9], 8, "seqlens_k is 8 for sequence 0; it must be below total_sequence_length, 8"),
    "negative": (1, [0], 8, "seqlens_k is -1 for sequence 0; it must be below total_sequence_length, 8"),
    "too small": (4, [3], 8, "seqlens_k is 2 for sequence 0, which has 4 new tokens; the past holds 0 to 2049"),
    "no total": (1, [1], 0, "total_sequence_length is 0; it must be positive"),
    "beyond the tables": (1, [2049], 2049, "cos_cache has 2048 positions; total_sequence_length is 2049"),
    "beyond the past": (1, [2060], 2060, "is 2060; it must be at most the past's 2049, or that and the 1 new tokens"),
}


@pytest.mark.parametrize(("tokens", "lengths", "total", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_wrong_lengths_are_refused(tokens: int, lengths: list[int], total: int, message: str) -> None:
    pair = Pair(Shape(angles=16), capacity=POSITIONS + 1)
    with pytest.raises(Exception, match=f"intaglio: GroupQueryAttention: input .*{message}"):
        pair.call(tokens, lengths, total)


def test_several_tokens_after_a_past_need_a_batch_of_one() -> None:
    pair = Pair(Shape(), batch=2, capacity=8)
    with pytest.raises(Exception, match="has 2 sequences of 2 tokens; it must have one sequence when several tokens"):
        pair.call(2, [4, 4], 4)


@pytest.mark.parametrize("attributes", [{"softcap": 3.0}, {"sliding_window_cache": 2}, {"causal": 0}], ids=str)
def test_unsupported_attributes_are_refused(attributes: dict[str, Any]) -> None:
    ((name, value),) = attributes.items()
    with pytest.raises(Exception, match=f"intaglio: GroupQueryAttention: attribute {name} is {value:g}; it must be"):
        session(Shape(window=8).model(**attributes), own=True)


def test_a_negative_scale_is_refused() -> None:
    with pytest.raises(Exception, match="attribute scale is -1; it must be 0 or more"):
        session(Shape(scale=-1.0).model(), own=True)


def test_the_library_registers_only_requested_operators(tmp_path: Path) -> None:
    options = ort.SessionOptions()
    options.register_custom_ops_library(str(kernels.library()))
    model = Shape(window=8).model(softcap=3.0)
    assert ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
