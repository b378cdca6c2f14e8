"""Sliding layers that keep only their window: the graph is changed before ONNX Runtime loads it.

GroupQueryAttention with ``sliding_window_cache=1`` keeps a buffer of C positions, at least its window W, and drops the
oldest by itself. That rules out pasts that grow from nothing, which other programs use, so the file does not have
the attribute and it is added here. After T tokens the buffer has the positions ``first_kept(T)`` to T - 1, counted from
0 (ONNX Runtime, ContribOperators.md).
"""

from collections.abc import Sequence

from ...artifact import ModelFacts
from .graph import Graph

DROPPED_SHARE = 16
BLOCK = 64
"""KEY_BLOCK in native/attention/query_tile.h."""


def window_capacity(window: int) -> int:
    """Return the capacity C for a window of W tokens: one less than W and a sixteenth of it.

    A full buffer drops C - W + 1 positions at once, and the others are moved to its beginning; so many tokens share
    that cost. At 131,072 tokens of EXAONE 4.0 32B (window 4,096 in 48 of 64 layers) it is 0.2 % of the cache.

    What is dropped is a multiple of ``BLOCK``: intaglio's attention sums keys in blocks from the buffer's beginning,
    which then are those of a buffer that keeps everything.
    """
    return window + -(-max(window // DROPPED_SHARE, BLOCK) // BLOCK) * BLOCK - 1


def first_kept(total: int, window: int) -> int:
    """Return the first position in a sliding layer's buffer after ``total`` tokens."""
    capacity = window_capacity(window)
    dropped_at_once = capacity - window + 1
    return 0 if total <= capacity else dropped_at_once * -(-(total - capacity) // dropped_at_once)


def same_until(total: int, window: int, *, drifts: bool = True) -> int:
    """Return the most tokens with the same ``first_kept`` as ``total``: up to there a rollback is exact.

    Args:
        drifts: the positions of a full buffer are moved at once for several tokens, as on the CPU. On CUDA each token
            moves them (ONNX Runtime 1.30, ``GetSequenceLengths`` in group_query_attention_impl.cu, whose ``gap`` is 1).
    """
    capacity = window_capacity(window)
    if not drifts:
        return max(capacity, total)
    return capacity + first_kept(total, window)


def kept_positions(layer_windows: Sequence[int | None], tokens: int) -> int:
    """Return the number of positions that all layers together keep for ``tokens`` tokens."""
    return sum(tokens if window is None else min(tokens, window_capacity(window)) for window in layer_windows)


def has_windows(facts: ModelFacts) -> bool:
    """Return True where the model has sliding layers."""
    return any(window is not None for window in facts.layer_windows)


def with_window_caches(graph: Graph) -> None:
    """Set ``sliding_window_cache`` on the attention of sliding layers."""
    for node in graph.nodes:
        if node.kind == b"GroupQueryAttention" and any(window > 0 for window in node.integers(b"local_window_size")):
            node.add_integer(b"sliding_window_cache", 1)
