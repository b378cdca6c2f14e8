"""Module paths: the layer, the kind of projection, and a short name."""

import re

_LAYER = re.compile(r"(?:^|\.)layers\.(\d+)(?:\.(.+))?$", re.DOTALL)
KINDS = tuple("qkv_proj q_proj k_proj v_proj o_proj gate_up_proj gate_proj up_proj down_proj".split())
"""The order of a layer's projections; others are last."""
_WORDS = {"embed_tokens": "embedding", "norm": "final norm", "lm_head": "head"}


def layer_of(path: str) -> int | None:
    """Return the index of the layer that a path is in, or None."""
    found = _LAYER.search(path)
    return int(found[1]) if found else None


def kind_of(path: str) -> str:
    """Return the last part of a module's path: ``down_proj``."""
    return path.rpartition(".")[2]


def short(path: str) -> str:
    """Return ``layer 3 · self_attn.q_proj`` for ``model.layers.3.self_attn.q_proj``; ``embedding``, ``final norm``."""
    if found := _LAYER.search(path):
        return f"layer {found[1]}" + (f" · {found[2]}" if found[2] else "")
    return _WORDS.get(kind_of(path), kind_of(path))


def rank(kind: str) -> tuple[int, str]:
    """Return the sort key of a kind of projection."""
    return (KINDS.index(kind) if kind in KINDS else len(KINDS)), kind
