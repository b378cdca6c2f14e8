"""Sliding layers that keep only their window: the graph is changed on its way from the file to ONNX Runtime.

GroupQueryAttention with ``sliding_window_cache=1`` keeps a buffer of C positions, at least its window W, and drops the
oldest by itself. That rules out pasts that grow from nothing, which other programs than ours use, so ``model.onnx``
comes without it, and the attribute is added to the bytes that are loaded here. What such a buffer holds after T tokens,
all positions counted from 0 (ONNX Runtime, ContribOperators.md): those from ``first_kept(T)`` to T - 1.
"""

from collections.abc import Sequence

from ...artifact import ModelFacts
from .graph import Graph

LEAST_SLACK = 64
SLACK_SHARE = 16


def window_capacity(window: int) -> int:
    """C for a window of W tokens: a sixteenth more, at least 64.

    When the buffer is full, the newest W positions are moved to its beginning. The slack is how many tokens share that
    cost. At 131,072 tokens of EXAONE 4.0 32B (window 4,096 in 48 of 64 layers) it is worth 0.2 % of the cache.
    """
    return window + max(LEAST_SLACK, window // SLACK_SHARE)


def first_kept(total: int, window: int) -> int:
    """The first position that a sliding layer's buffer holds after ``total`` tokens."""
    capacity = window_capacity(window)
    dropped_at_once = capacity - window + 1
    return 0 if total <= capacity else dropped_at_once * -(-(total - capacity) // dropped_at_once)


def same_until(total: int, window: int) -> int:
    """The most tokens with the same ``first_kept`` as ``total``: so far one can go and still come back."""
    capacity = window_capacity(window)
    return capacity + first_kept(total, window)


def kept_positions(layer_windows: Sequence[int | None], tokens: int) -> int:
    """Positions that all layers together keep of a text of ``tokens``."""
    return sum(tokens if window is None else min(tokens, window_capacity(window)) for window in layer_windows)


def has_windows(facts: ModelFacts) -> bool:
    return any(window is not None for window in facts.layer_windows)


def with_window_caches(graph: Graph) -> None:
    """Set ``sliding_window_cache`` on sliding layers."""
    for node in graph.nodes:
        if node.kind == b"GroupQueryAttention" and any(window > 0 for window in node.integers(b"local_window_size")):
            node.add_integer(b"sliding_window_cache", 1)
