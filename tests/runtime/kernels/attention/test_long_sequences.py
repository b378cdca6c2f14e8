"""Attention of long sequences: near float64, and the same bits however a sequence is divided.

With AMX they are computed with products of bfloat16 (native/attention/amx.c), with VNNI with products of int16
(integers.h), otherwise in float32.
"""

from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from intaglio.runtime import kernels
from numpy.typing import NDArray

from ..fuzz.attention import BFLOAT16, FLOAT32, INT8, INT16, products, read_rows, stored_rows
from ..one_node import OneNode
from .test_attention import supported

Floats = NDArray[np.float32]
Wide = NDArray[np.float64]
pytestmark = pytest.mark.skipif(not supported(), reason="no compiled kernels for this processor")


@dataclass(frozen=True)
class Text:
    """Random queries, keys and values of one layer, and a cache of all keys and values."""

    group: int = 7
    kv_heads: int = 2
    size: int = 64
    window: int = -1
    int8: bool = False
    tokens: int = 300
    bias: float = 0.0
    """What is added to the first two channels of every key."""

    def draw(self) -> tuple[Floats, Floats, Floats]:
        """Return queries [S, H * E], and rows of keys and of values [K, S, E]."""
        random = np.random.default_rng(self.tokens + self.size)
        query = random.normal(size=(self.tokens, self.kv_heads * self.group, self.size))
        key, value = random.normal(size=(2, self.kv_heads, self.tokens, self.size))
        key[..., :2] += self.bias
        flat = query.reshape(self.tokens, -1)
        return flat.astype(np.float32), key.astype(np.float32), value.astype(np.float32)

    def read(self, start: int, end: int, batch: int = 1, part: bool = False, beyond: float = np.nan) -> Floats:
        """Return attention from tokens start .. end, [S, H * E], in the first sequence of a batch.

        Args:
            part: they are a part of a long sequence.
            beyond: what the cache holds behind them.
        """
        query, *rows = self.draw()
        caches = []
        for each in rows:
            cached = np.repeat(each[None], batch, axis=0)
            cached[1:] = cached[1:, :, ::-1]
            cached[:, :, start:] = beyond
            caches.append(stored_rows(np.nan_to_num(cached)) if self.int8 else cached)
        new = [np.repeat(each[None, :, start:end].swapaxes(1, 2), batch, axis=0) for each in rows]
        flat = [each.reshape(batch, end - start, -1) for each in new]
        queries = np.repeat(query[None, start:end], batch, axis=0)
        queries[1:] *= -1
        node = OneNode(
            INT8 if self.int8 else "GroupQueryAttention",
            {"num_heads": self.kv_heads * self.group, "kv_num_heads": self.kv_heads, "local_window_size": self.window},
            {
                "query": queries,
                "key": flat[0],
                "value": flat[1],
                "past_key": caches[0],
                "past_value": caches[1],
                "seqlens_k": np.full(batch, end - 1, np.int32),
                "total_sequence_length": np.array([end], np.int32),
            },
            ("y", "present_key", "present_value"),
            cache=np.int8 if self.int8 else np.float32,
        )
        with kernels.part_of_a_long_sequence() if part else nullcontext():
            return np.asarray(node.run()[0][0])

    def wanted(self) -> Wide:
        """Return attention of all tokens in float64, [S, H * E]; of what the cache holds, if it is int8."""
        query, *rows = self.draw()
        keys, values = (
            np.repeat(read_rows(stored_rows(each))[0] if self.int8 else each.astype(np.float64), self.group, axis=0)
            for each in rows
        )
        queries = query.reshape(self.tokens, -1, self.size).swapaxes(0, 1).astype(np.float64)
        position, at = np.arange(self.tokens)[:, None], np.arange(self.tokens)[None]
        hidden = (at > position) | ((self.window > 0) & (at <= position - self.window))
        scores = np.where(hidden, -np.inf, queries @ keys.swapaxes(1, 2) / np.sqrt(self.size))
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        y = weights / weights.sum(axis=-1, keepdims=True) @ values
        return np.asarray(y.swapaxes(0, 1).reshape(self.tokens, -1))


SHAPES = {
    "Qwen2 0.5B": Text(),
    "heads of 128": Text(4, 1, 128),
    "heads of 16": Text(2, 2, 16),
    "heads of 80": Text(3, 1, 80),
    "heads of 256": Text(1, 1, 256),
    "64 query heads": Text(64, 1, 32, tokens=70),
    "a key head each": Text(1, 3, 48),
    "large keys": Text(bias=100.0),
    "window": Text(window=70),
    "window of one": Text(window=1),
    "window of a block": Text(window=64),
    "window of two blocks and one": Text(3, 1, 32, window=129),
}
SHAPES |= {f"{name}, int8": replace(text, int8=True) for name, text in SHAPES.items()}


@pytest.mark.usefixtures("with_each")
@pytest.mark.parametrize("text", SHAPES.values(), ids=SHAPES.keys())
def test_a_long_sequence_is_near_float64(text: Text) -> None:
    found, wanted = text.read(0, text.tokens), text.wanted()
    # In bfloat16, weights and values have errors of 2^-9. One of 2^-16 of a product changes a score, and so its weight;
    # keys with a bias have larger products.
    errors = {BFLOAT16: (5e-3, 1e-2), INT16: (1e-3, 1e-3), FLOAT32: (3e-6, 1e-5)}
    most = errors[products(text.tokens)][text.bias != 0]
    assert np.abs(found - wanted).max() <= most * np.abs(wanted).max()


@pytest.mark.parametrize("text", SHAPES.values(), ids=SHAPES.keys())
def test_parts_have_the_bits_of_the_whole(text: Text) -> None:
    """Divide at block edges and beside them, into parts from the shortest possible on."""
    whole = text.read(0, text.tokens)
    edges = [(0, 64), (0, 65), (8, 72), (62, 70), (1, 69)]
    if text.tokens >= 300:
        edges += [
            (63, 127),
            (64, 72),
            (120, 128),
            (121, 129),
            (127, 260),
            (128, 192),
            (191, 199),
            (292, 300),
            (200, 300),
        ]
    for start, end in [(start, end) for start, end in edges if end <= text.tokens]:
        part = text.read(start, end, part=True)
        assert np.array_equal(part.view(np.int32), whole[start:end].view(np.int32)), (start, end)
        if end - start >= kernels.LONG_SEQUENCE:
            assert np.array_equal(text.read(start, end), part)


@pytest.mark.parametrize("text", [Text(), Text(int8=True), Text(window=70)], ids=["float32", "int8", "window"])
def test_neighbours_in_a_batch_change_nothing(text: Text) -> None:
    assert np.array_equal(text.read(0, 200, batch=3), text.read(0, 200))


@pytest.mark.parametrize("text", SHAPES.values(), ids=SHAPES.keys())
def test_int16_has_the_same_bits_with_256_and_512_bits(text: Text, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for name in ("AVX512-VNNI", "AVX-VNNI"):
        monkeypatch.setenv("INTAGLIO_KERNELS", name)
        if kernels.instructions() != name:
            pytest.skip(f"no compiled kernels for {name} on this processor")
        found.append(text.read(0, text.tokens))
    assert np.array_equal(found[0], found[1])


@pytest.mark.usefixtures("with_each")
def test_what_is_behind_the_tokens_changes_nothing() -> None:
    text = Text()
    assert np.array_equal(text.read(0, 100, beyond=np.inf), text.read(0, 100, beyond=0.0))
    assert np.isfinite(text.read(0, 100)).all()


@pytest.mark.usefixtures("with_each")
@pytest.mark.parametrize("lengths", [(63, 1), (63, 8), (40, 23)])
def test_short_passes_are_those_of_float32(lengths: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    text = Text()
    ends = np.cumsum(lengths)
    found = [text.read(int(end - n), int(end)) for end, n in zip(ends, lengths, strict=True)]
    monkeypatch.setenv("INTAGLIO_KERNELS", "neon" if (kernels.instructions() or "").startswith("NEON") else "avx2")
    if kernels.instructions() is None:
        pytest.skip("there is no other instruction set")
    for end, n, y in zip(ends, lengths, found, strict=True):
        assert np.array_equal(text.read(int(end - n), int(end)), y)


@pytest.mark.usefixtures("with_each")
def test_sums_follow_a_maximum_that_rises() -> None:
    """Scores rise by hundreds from block to block, and weights of earlier blocks vanish."""
    text = Text(1, 1, 16, tokens=260)
    query, key, value = text.draw()
    query[:, 0], key[..., 0] = 4.0, np.arange(260) * 3.0
    rising = _Given(1, 1, 16, tokens=260, given=(query, key, value))
    found, wanted = rising.read(0, 260), rising.wanted()
    assert np.abs(found - wanted).max() <= 2e-2 * np.abs(wanted).max()  # of scores near 800
    key[..., 0] *= -1
    falling = _Given(1, 1, 16, tokens=260, given=(query, key, value))
    found, wanted = falling.read(0, 260), falling.wanted()
    assert np.abs(found - wanted).max() <= 2e-2 * np.abs(wanted).max()


@dataclass(frozen=True)
class _Given(Text):
    given: Any = None

    def draw(self) -> tuple[Floats, Floats, Floats]:
        query, key, value = self.given
        return query, key, value


@pytest.mark.usefixtures("with_each")
def test_nan_stays_in_its_sequence() -> None:
    text = Text(tokens=100)
    query, key, value = text.draw()
    value[0, 70, 3] = np.nan
    found = _Given(tokens=100, given=(query, key, value)).read(0, 100).reshape(100, 14, 64)
    assert np.isnan(found[70:, :7, 3]).all()
    assert np.isfinite(found[:, 7:]).all()
    if products(100) != INT16:  # a row of int16 has one scale
        assert np.isfinite(np.delete(found, 3, axis=2)).all()
