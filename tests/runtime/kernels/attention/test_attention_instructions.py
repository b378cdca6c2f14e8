"""Attention returns the same bits with all instruction sets, and INTAGLIO_KERNELS chooses among them."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from intaglio.runtime import kernels
from intaglio.runtime.kernels.edits.int8_cache import SCALE_BYTES
from numpy.typing import NDArray

from ...conftest import NAMES, run_session
from . import test_int8_cache as int8
from .test_attention import Shape, session, supported

Floats = NDArray[np.float32]
POSITIONS = 700
pytestmark = pytest.mark.skipif(not supported(), reason="no compiled kernels for this processor")


def with_all(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Choose each instruction set of this processor in turn."""
    for name in NAMES:
        monkeypatch.setenv("INTAGLIO_KERNELS", name)
        if kernels.instructions() == name:
            yield name


def outputs(shape: Shape | int8.Shape) -> list[Floats]:
    """Return outputs and caches of calls of one token, of few, and of many."""
    random = np.random.default_rng(5)
    in_int8 = isinstance(shape, int8.Shape)
    ours = shape.session() if isinstance(shape, int8.Shape) else session(shape.model(), own=True)
    row = shape.size + SCALE_BYTES if in_int8 else shape.size
    caches = [np.zeros((1, shape.kv_heads, 0, row), dtype=np.int8 if in_int8 else np.float32)] * 2
    found, length = [], 0
    for tokens in (33, 1, 2, 7, 100, 1, 530):
        length += tokens
        wide, narrow = (heads * shape.size for heads in (shape.heads, shape.kv_heads))
        feeds: dict[str, Any] = {
            name: random.normal(size=(1, tokens, width)).astype(np.float32)
            for name, width in (("query", wide), ("key", narrow), ("value", narrow))
        }
        feeds |= {"seqlens": np.array([length - 1], np.int32), "total": np.array([length], np.int32)}
        if shape.angles:
            angles = np.outer(np.arange(POSITIONS), 0.7 ** np.arange(shape.angles)).astype(np.float32)
            feeds |= {"cos": np.cos(angles), "sin": np.sin(angles)}
        y, *caches = run_session(ours, feeds | {"past_key": caches[0], "past_value": caches[1]})
        found.append(y)
    return [*found, *caches]


FLOAT = Shape(angles=16)
SHAPES: dict[str, Shape | int8.Shape] = {
    "Qwen2 0.5B": replace(FLOAT, heads=14, size=64, angles=32),
    "head size 16": replace(FLOAT, size=16, angles=8),
    "head size 80": replace(FLOAT, size=80),
    "head size 256": replace(FLOAT, size=256),
    "one query head for each key head": replace(FLOAT, heads=2),
    "17 queries for each key head": replace(FLOAT, heads=17, kv_heads=1),
    "window": replace(FLOAT, window=70),
    "window of one": replace(FLOAT, window=1),
    "scores far apart": replace(FLOAT, scale=5.0),
    "int8 cache": int8.Shape(heads=14, size=64, angles=32),
    "int8 cache, bias": int8.Shape(told="bias"),
    "int8 cache, window": int8.Shape(size=48, window=70),
    "int8 cache, 17 queries": int8.Shape(heads=17, kv_heads=1, told="norm"),
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_all_return_the_same_bits(shape: Shape | int8.Shape, monkeypatch: pytest.MonkeyPatch) -> None:
    first, *others = [outputs(shape) for _ in with_all(monkeypatch)]
    for other in others:
        assert all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


@pytest.mark.usefixtures("with_each")
@pytest.mark.parametrize("heads", [1, 16], ids=["decode", "prefill"])
def test_weights_of_every_size(heads: int) -> None:
    """Compare 2^x from 1 down to where float32 ends, subnormal numbers included, with numpy."""
    size, keys = 256, 160
    scores = -np.arange(keys, dtype=np.float32) * np.float32(0.7)
    query, key = np.zeros((1, 1, heads * size), np.float32), np.zeros((1, 1, keys, size), np.float32)
    query[0, 0, ::size] = 1
    key[0, 0, :, 0] = scores
    value = np.eye(keys, size, dtype=np.float32)[None, None] * np.float32(2.0**100)
    feeds = {
        "query": query,
        "key": np.full((1, 1, size), -1e4, np.float32),
        "value": np.zeros((1, 1, size), np.float32),
        "past_key": key,
        "past_value": value,
        "seqlens": np.array([keys], np.int32),
        "total": np.array([keys + 1], np.int32),
    }
    shape = Shape(heads=heads, kv_heads=1, size=size, scale=1.0)
    y = run_session(session(shape.model(), own=True), feeds)[0].reshape(heads, size)
    weights = np.exp(scores.astype(np.float64))
    expected = np.zeros(size)
    expected[:keys] = weights * 2.0**100 / weights.sum()
    assert 0 < weights[150] < 2.0**-149 * 2  # the last ones are subnormal, and then 0
    for row in y:
        np.testing.assert_allclose(row, expected, rtol=3e-5, atol=2.0**-149 * 2.0**100)


def test_an_unknown_instruction_set_leaves_attention_to_onnxruntime(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTAGLIO_KERNELS", "sse9")
    with pytest.raises(Exception, match="this processor lacks the instructions of a kernel"):
        session(Shape().model(), own=True)
