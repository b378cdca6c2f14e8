"""The element type of the KV cache where the runtime chooses it: ``kv_cache="auto"``.

The type is fixed when the graph is loaded, before the length of a text is known, so the longest one that may come
decides.
"""

from typing import NamedTuple

from ...artifact import Manifest
from ...contract import ACTIVATIONS, has_cache
from ...machine import available_memory
from ..kernels import library
from ..kernels.edits.int8_cache import fits
from .session import Device, Kernels
from .sizes import RESERVE, cache_bytes, weight_bytes

FASTER_FROM = 8_192
"""Tokens from which on decode steps with an int8 cache are faster (1.04 × at 4,096, 1.14 × at 16,384)."""
COST = "it costs 0.0006 nats per token of KL divergence on a Qwen2 0.5B"
NO_ATTENTION = "intaglio's attention cannot run here"


class CacheChoice(NamedTuple):
    """Whether the KV cache is int8 or keeps the artifact's element type, and why."""

    int8: bool
    reason: str


def choose_cache(
    manifest: Manifest, device: Device, kernels: Kernels, *, max_length: int | None, slots: int, windowed: bool
) -> CacheChoice:
    """Return the int8 cache where one is possible, and the texts are long or do not fit into memory otherwise.

    Args:
        max_length: the most tokens of a text; None for the model's context.
        slots: how many texts of this length are in memory at once.
        windowed: sliding layers keep only their window.
    """
    obstacle = _obstacle(manifest, device, kernels)
    if obstacle is not None:
        return CacheChoice(False, f"an int8 cache is not possible: {obstacle}")
    facts = manifest.model
    length = min(max_length or facts.context_length, facts.context_length)
    if length >= FASTER_FROM:
        return CacheChoice(True, f"texts of {length:,} tokens, for which it is faster; {COST}")
    cache, free = slots * cache_bytes(facts, length, windowed=windowed), available_memory()
    texts = f"{slots} text{'' if slots == 1 else 's'} of {length:,} tokens"
    if free is not None and weight_bytes(manifest) + cache + RESERVE > free:
        return CacheChoice(
            True,
            f"{texts} need {cache / 1e9:,.2f} GB as float32 beside the weights, and {free / 1e9:,.2f} GB are free; "
            f"{COST}",
        )
    return CacheChoice(False, f"{texts} fit into memory, and int8 is faster from {FASTER_FROM:,} tokens on only")


def _obstacle(manifest: Manifest, device: Device, kernels: Kernels) -> str | None:
    """Return what rules an int8 cache out, as far as it is known before the graph is loaded."""
    facts = manifest.model
    if not has_cache(manifest.task):
        return f"an artifact for {manifest.task} has no KV cache"
    if device != "cpu":
        return f"the device is {device}"
    if kernels == "onnxruntime":
        return "the kernels are ONNX Runtime's"
    if manifest.target != "ort":
        return f"the artifact's target is {manifest.target!r}"
    if facts.cache_dtype != "float32":
        return f"the artifact's activations are {ACTIVATIONS[facts.cache_dtype]}"
    return None if fits(facts) and library() is not None else NO_ATTENTION
