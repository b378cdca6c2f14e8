"""An int8 KV cache: GroupQueryAttention becomes GroupQueryAttentionInt8, and the graph's caches become int8
[B, K, C, E + SCALE_BYTES] (native/attention/cache.h), about a quarter of the memory.
"""

from typing import Protocol

from ....contract import PAST, PRESENT
from ...graph.graph import (
    FLOAT,
    GRAPH_INITIALIZER,
    GRAPH_INPUT,
    GRAPH_OUTPUT,
    INT8,
    MICROSOFT,
    TENSOR_DATA_TYPE,
    TENSOR_NAME,
    TYPE_TENSOR,
    TYPE_TENSOR_ELEMENT,
    VALUE_NAME,
    VALUE_TYPE,
    Graph,
)
from ...graph.wire import delimited, edit, integer, integers, texts

OPERATOR = "GroupQueryAttentionInt8"
SCALE_BYTES = 4
"""The float32 scale after each row of E bytes."""

PAST_KEY, KEY_BIAS, KEY_NORM = 3, 9, 10  # inputs of the operator
CACHES = (PAST.encode(), PRESENT.encode())


class Heads(Protocol):
    """What the size of a row depends on."""

    @property
    def head_dim(self) -> int: ...


def fits(heads: Heads) -> bool:
    """Return whether intaglio's attention has heads of this size (native/attention/operator.c)."""
    return heads.head_dim % 16 == 0 and heads.head_dim <= 256


def row_bytes(heads: Heads) -> int:
    """Return the bytes of the key or the value of one token and head."""
    return heads.head_dim + SCALE_BYTES


def use_int8_cache(graph: Graph) -> None:
    """Make the KV cache of every layer int8.

    The operator also receives the bias of the keys or the weight of their norm, if the graph stores one.

    Raises:
        ValueError: a node has inputs that the operator does not have, or an input or output of the graph has no name.
    """
    stored = {
        name
        for tensor in texts(graph.rest, GRAPH_INITIALIZER)
        if integers(tensor, TENSOR_DATA_TYPE) == [FLOAT]
        for name in texts(tensor, TENSOR_NAME)
    }
    for node in graph.nodes:
        if not node.is_a(b"GroupQueryAttention", MICROSOFT):
            continue
        if any(node.inputs[KEY_BIAS:]):
            raise ValueError(f"a node GroupQueryAttention has {len(node.inputs)} inputs; at most {KEY_BIAS} are known")
        node.kind = OPERATOR.encode()
        layer = b"model.layers.%b.self_attn." % node.input(PAST_KEY).removeprefix(PAST.encode()).split(b".")[0]
        node.inputs += [b""] * (KEY_NORM + 1 - len(node.inputs))
        for name in (b"k_proj.bias", b"qkv_proj.bias"):
            if layer + name in stored:
                node.inputs[KEY_BIAS] = layer + name
        if layer + b"k_norm.weight" in stored:
            node.inputs[KEY_NORM] = layer + b"k_norm.weight"
    for values in (GRAPH_INPUT, GRAPH_OUTPUT):
        graph.rest = edit(graph.rest, values, _with_int8)


def _with_int8(value: bytes) -> bytes:
    names = texts(value, VALUE_NAME)
    if len(names) != 1:
        raise ValueError(f"an input or output of the graph has {len(names)} names")
    (name,) = names
    if not name.startswith(CACHES):
        return value
    return delimited(VALUE_NAME, name) + delimited(
        VALUE_TYPE, delimited(TYPE_TENSOR, integer(TYPE_TENSOR_ELEMENT, INT8))
    )
