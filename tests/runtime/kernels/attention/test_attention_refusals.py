"""Attention whose attributes, inputs and outputs do not agree is refused, with a message that names both values.

Every case changes one thing of a node that runs. ONNX Runtime's kernel refuses the node too where it has one.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ..one_node import WRAPS, OneNode, at_odd_address, ones
from .test_attention import supported

# ---- GroupQueryAttention ------------------------------------------------------------------------------------------

HEADS, KV_HEADS, SIZE, PAST, TABLE = 4, 2, 32, 8, 64
ATTENTION = OneNode(
    "GroupQueryAttention",
    {"num_heads": HEADS, "kv_num_heads": KV_HEADS, "do_rotary": 1},
    {
        "query": ones(2, 1, HEADS * SIZE),
        "key": ones(2, 1, KV_HEADS * SIZE),
        "value": ones(2, 1, KV_HEADS * SIZE),
        "past_key": ones(2, KV_HEADS, PAST, SIZE),
        "past_value": ones(2, KV_HEADS, PAST, SIZE),
        "seqlens_k": np.array([8, 5], np.int32),
        "total_sequence_length": np.array([9], np.int32),
        "cos_cache": ones(TABLE, 16),
        "sin_cache": ones(TABLE, 16),
    },
    ["output", "present_key", "present_value"],
)
KEYS = "[B, S, kv_num_heads * head_size]"
CACHE = "[B, kv_num_heads, capacity, row]"
INT = np.int32
ATTENTIONS: dict[str, tuple[dict[str, Any], str]] = {
    "heads that overflow": (
        {"num_heads": WRAPS, "kv_num_heads": WRAPS},
        f"attribute num_heads is {WRAPS}; it must be from 1 to {2**31 - 1}",
    ),
    "many heads": (
        {"num_heads": 2**31 - 2},
        f"attribute num_heads is {2**31 - 2}; it must be a multiple of kv_num_heads, 2, and at most 64 times as many",
    ),
    "no key heads": ({"kv_num_heads": 0}, f"attribute kv_num_heads is 0; it must be from 1 to {2**31 - 1}"),
    "negative heads": ({"num_heads": -4}, f"attribute num_heads is -4; it must be from 1 to {2**31 - 1}"),
    "heads that do not divide": (
        {"kv_num_heads": 3},
        "attribute num_heads is 4; it must be a multiple of kv_num_heads, 3, and",
    ),
    "fewer heads": (
        {"num_heads": 2, "kv_num_heads": 1},
        f"input past_key has the shape [2, 2, 8, 32]; it must be {CACHE} = [2, 1, ?, 64]",
    ),
    "causal of another type": ({"causal": [0]}, "attribute causal is not an integer"),
    "a scale of another type": ({"scale": 1}, "attribute scale is not a float"),
    "query of two dimensions": (
        {"query": ones(2, 128)},
        "input query has the shape [2, 128]; it must be [B, S, width] =",
    ),
    "a width that does not divide": (
        {"query": ones(2, 1, 127)},
        "input query has the width 127 for 4 heads; that must be a multiple of 16 for each, at most 256",
    ),
    "query of another batch": (
        {"query": ones(3, 1, 128)},
        f"input key has the shape [2, 1, 64]; it must be {KEYS} = [3, 1, 64]",
    ),
    "key of another batch": (
        {"key": ones(1, 1, 64)},
        f"input key has the shape [1, 1, 64]; it must be {KEYS} = [2, 1, 64]",
    ),
    "value of another batch": (
        {"value": ones(1, 1, 64)},
        f"input value has the shape [1, 1, 64]; it must be {KEYS} = [2, 1, 64]",
    ),
    "key of another length": (
        {"key": ones(2, 2, 64)},
        f"input key has the shape [2, 2, 64]; it must be {KEYS} = [2, 1, 64]",
    ),
    "narrow values": (
        {"value": ones(2, 1, 32)},
        f"input value has the shape [2, 1, 32]; it must be {KEYS} = [2, 1, 64]",
    ),
    "no value": ({"value": None}, "key is given without value"),
    "no key": ({"key": None}, "value is given without key"),
    "no tokens": (
        {name: ones(2, 0, width) for name, width in (("query", 128), ("key", 64), ("value", 64))},
        "input query has 0 tokens; at least one is needed",
    ),
    "past of another batch": (
        {"past_key": ones(1, 2, 8, 32)},
        f"input past_key has the shape [1, 2, 8, 32]; it must be {CACHE} = [2, 2, ?, 32]",
    ),
    "past of other heads": (
        {"past_key": ones(2, 1, 8, 32)},
        f"input past_key has the shape [2, 1, 8, 32]; it must be {CACHE} = [2, 2, ?, 32]",
    ),
    "past of another size": (
        {"past_key": ones(2, 2, 8, 16)},
        f"input past_key has the shape [2, 2, 8, 16]; it must be {CACHE} = [2, 2, ?, 32]",
    ),
    "past values of another length": (
        {"past_value": ones(2, 2, 4, 32)},
        "input past_value has the shape [2, 2, 4, 32]; it must be the shape of past_key = [2, 2, 8, 32]",
    ),
    "past of three dimensions": (
        {"past_key": ones(4, 8, 32)},
        f"input past_key has the shape [4, 8, 32]; it must be {CACHE}",
    ),
    "no past values": ({"past_value": None}, "past_key is given without past_value"),
    "no past keys": ({"past_key": None}, "past_value is given without past_key"),
    "few lengths": ({"seqlens_k": np.array([8], INT)}, "input seqlens_k has 1 elements; query has 2 sequences"),
    "many lengths": ({"seqlens_k": np.zeros(3, INT)}, "input seqlens_k has 3 elements; query has 2 sequences"),
    "no lengths": ({"seqlens_k": np.zeros(0, INT)}, "input seqlens_k has 0 elements; query has 2 sequences"),
    "a length too large": (
        {"seqlens_k": np.array([8, 9], INT)},
        "input seqlens_k is 9 for sequence 1; it must be below total_sequence_length, 9",
    ),
    "the largest length": (
        {"seqlens_k": np.array([2**31 - 1, 8], INT)},
        f"input seqlens_k is {2**31 - 1} for sequence 0; it must be below total_sequence_length, 9",
    ),
    "a negative length": (
        {"seqlens_k": np.array([8, -1], INT)},
        "input seqlens_k is -1 for sequence 1; it must be below total_sequence_length, 9",
    ),
    "two totals": (
        {"total_sequence_length": np.array([9, 9], INT)},
        "input total_sequence_length has the shape [2]; it must be [1] = [1]",
    ),
    "an empty total": (
        {"total_sequence_length": np.zeros(0, INT)},
        "input total_sequence_length has the shape [0]; it must be [1] = [1]",
    ),
    "a total of 0": (
        {"total_sequence_length": np.array(0, INT)},
        "input total_sequence_length is 0; it must be positive",
    ),
    "the largest total": (
        {"total_sequence_length": np.array([2**31 - 1], INT)},
        f"input total_sequence_length is {2**31 - 1}; it must be at most the past's 8, or that and the 1 new tokens",
    ),
    "short tables": (
        {"cos_cache": ones(8, 16), "sin_cache": ones(8, 16)},
        "input cos_cache has 8 positions; total_sequence_length is 9",
    ),
    "sin of other positions": (
        {"sin_cache": ones(8, 16)},
        "input sin_cache has the shape [8, 16]; it must be the shape of cos_cache = [64, 16]",
    ),
    "sin of other angles": (
        {"sin_cache": ones(64, 8)},
        "input sin_cache has the shape [64, 8]; it must be the shape of cos_cache = [64, 16]",
    ),
    "cos of one dimension": (
        {"cos_cache": ones(64)},
        "input cos_cache has the shape [64]; it must be [positions, angles]",
    ),
    "many angles": (
        {"cos_cache": ones(64, 24), "sin_cache": ones(64, 24)},
        "input cos_cache has 24 angles; they must be a multiple of 8 and at most half of head_size, 32",
    ),
    "an odd number of angles": (
        {"cos_cache": ones(64, 12), "sin_cache": ones(64, 12)},
        "input cos_cache has 12 angles; they must be a multiple of 8 and at most half of head_size, 32",
    ),
    "no cos": ({"cos_cache": None}, "sin_cache is given without cos_cache"),
    "no tables": (
        {"cos_cache": None, "sin_cache": None},
        "attribute do_rotary is 1, and input cos_cache is missing",
    ),
    "one present": ({"outputs": ["output", "present_key"]}, "present_key is given without present_value"),
    "a window's cache of no window": (
        {"sliding_window_cache": 1},
        "attribute local_window_size is -1; with sliding_window_cache it must be at least 1",
    ),
    "a window's cache of another number": (
        {"sliding_window_cache": 2, "local_window_size": 8},
        "attribute sliding_window_cache is 2; it must be from 0 to 1",
    ),
    "a window's cache without a past": (
        {"sliding_window_cache": 1, "local_window_size": 8, "past_key": None, "past_value": None},
        "attribute sliding_window_cache is 1, and input past_key is missing",
    ),
    "a window's cache that is smaller": (
        {"sliding_window_cache": 1, "local_window_size": 9},
        "input past_key has 8 rows; with sliding_window_cache it must have local_window_size, 9, or more",
    ),
    "the largest window": (
        {"sliding_window_cache": 1, "local_window_size": 2**31 - 1},
        f"input past_key has 8 rows; with sliding_window_cache it must have local_window_size, {2**31 - 1}, or more",
    ),
    "padding before a window's cache": (
        {"sliding_window_cache": 1, "local_window_size": 8, "total_sequence_length": np.array([2], INT)}
        | {"query": ones(2, 2, 128), "key": ones(2, 2, 64), "value": ones(2, 2, 64)}
        | {"seqlens_k": np.array([1, 0], INT)},
        "input seqlens_k is 0 for sequence 1, which has 2 new tokens; with sliding_window_cache none of them can be "
        "padding",
    ),
    "a window's cache and short tables": (
        {"sliding_window_cache": 1, "local_window_size": 8, "total_sequence_length": np.array([2**31 - 1], INT)},
        f"input cos_cache has 64 positions; total_sequence_length is {2**31 - 1}",
    ),
}
needs_attention = pytest.mark.skipif(not supported(), reason="no compiled kernels for this processor")
ONLY_OURS = {"heads that overflow", "many heads", "a window's cache of another number"}
"""ONNX Runtime computes with such numbers."""


@needs_attention
@pytest.mark.parametrize(("name", "change", "message"), [(n, *case) for n, case in ATTENTIONS.items()], ids=ATTENTIONS)
def test_group_query_attention(name: str, change: dict[str, Any], message: str) -> None:
    ATTENTION.is_refused(change, message)
    if name not in ONLY_OURS:
        with pytest.raises(Exception, match="ONNXRuntimeError"):
            ATTENTION.changed(change).run(own=False)


@needs_attention
def test_positions_of_a_windows_cache_may_be_as_large_as_they_can_be() -> None:
    last = {"seqlens_k": np.array([2**31 - 2, 5], INT), "total_sequence_length": np.array([2**31 - 1], INT)}
    window = {"sliding_window_cache": 1, "local_window_size": 4, "do_rotary": 0, "cos_cache": None, "sin_cache": None}
    case = ATTENTION.changed({**window, **last})
    for found, wanted in zip(case.run(), case.run(own=False), strict=True):
        assert found.shape == wanted.shape
        np.testing.assert_allclose(found[:, :, :4], wanted[:, :, :4], rtol=1e-5)


@needs_attention
def test_heads_that_overflow_in_a_packed_query() -> None:
    change = {"num_heads": WRAPS, "kv_num_heads": WRAPS, "key": None, "value": None, "query": ones(2, 1, 32)}
    ATTENTION.is_refused(change, f"attribute num_heads is {WRAPS}; it must be from 1 to {2**31 - 1}")


@needs_attention
def test_attention_without_sequences_or_outputs_of_the_cache() -> None:
    for found, wanted in zip(ATTENTION.run(), ATTENTION.run(own=False), strict=True):
        np.testing.assert_allclose(found[:, :6], wanted[:, :6], rtol=1e-5)
    alone = ATTENTION.changed({"outputs": ["output"]})
    assert np.array_equal(alone.run()[0], ATTENTION.run()[0])
    none = {
        name: value[:0]
        for name, value in ATTENTION.inputs.items()
        if value is not None and name not in ("total_sequence_length", "cos_cache", "sin_cache")
    }
    assert [y.shape for y in ATTENTION.changed(none).run()] == [(0, 1, 128), (0, 2, 9, 32), (0, 2, 9, 32)]


INT8 = replace(
    ATTENTION,
    op="GroupQueryAttentionInt8",
    inputs={**ATTENTION.inputs, "past_key": ones(2, 2, 8, 36, dtype=np.int8)}
    | {"past_value": ones(2, 2, 8, 36, dtype=np.int8), "key_bias": ones(64), "key_norm": None},
    cache=np.int8,
)
INT8S: dict[str, tuple[dict[str, Any], str]] = {
    "rows without a scale": (
        {name: ones(2, 2, 8, 32, dtype=np.int8) for name in ("past_key", "past_value")},
        f"input past_key has the shape [2, 2, 8, 32]; it must be {CACHE} = [2, 2, ?, 36]",
    ),
    "a short bias": (
        {"key_bias": ones(63)},
        "input key_bias has the shape [63]; it must be [width of the keys, or of the packed query] = [64]",
    ),
    "a packed bias of the keys alone": (
        {"query": ones(2, 1, 256), "key": None, "value": None},
        "input key_bias has the shape [64]; it must be [width of the keys, or of the packed query] = [256]",
    ),
    "a norm of other sizes": (
        {"key_bias": None, "key_norm": ones(16)},
        "input key_norm has the shape [16]; it must be [head_size] = [32]",
    ),
    "a large total": (
        {"total_sequence_length": np.array([10], INT)},
        "input total_sequence_length is 10; it must be at most the past's 8, or that and the 1 new tokens",
    ),
}


@needs_attention
@pytest.mark.parametrize(("change", "message"), INT8S.values(), ids=INT8S.keys())
def test_group_query_attention_int8(change: dict[str, Any], message: str) -> None:
    assert INT8.run()[1].shape == (2, 2, 9, 36)
    INT8.is_refused(change, message)


@needs_attention
@pytest.mark.parametrize("name", [n for n, value in ATTENTION.inputs.items() if value is not None])
def test_odd_addresses_are_refused(name: str) -> None:
    """numpy's memory is used in place, as that of a mapped file is."""
    session, value = ATTENTION.session(), ATTENTION.inputs[name]
    assert value is not None
    binding = session.io_binding()
    for other, given in ATTENTION.inputs.items():
        assert given is not None
        copy = at_odd_address(given) if other == name else given
        binding.bind_input(other, "cpu", 0, copy.dtype, copy.shape, copy.ctypes.data)
    for output in ATTENTION.outputs:
        binding.bind_output(output, "cpu")
    with pytest.raises(Exception, match=f"input {name} begins at an address that is not a multiple of 4; store it at"):
        session.run_with_iobinding(binding)
