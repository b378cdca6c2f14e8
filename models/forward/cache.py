"""A KV cache that a caller gives: pairs of keys and values by layer, or a cache object of transformers.

transformers' ``DynamicCache`` is known by what it has, ``layers`` with ``keys`` and ``values``, and ``update``; the
package itself is not needed.
"""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from ...errors import UnsupportedError
from ..ops import KeyValue


@runtime_checkable
class Cache(Protocol):
    """What is read and written of a cache object."""

    @property
    def layers(self) -> Sequence[Any]: ...

    def update(self, key_states: Any, value_states: Any, layer_idx: int, /) -> Any: ...

    def get_seq_length(self) -> int: ...


Past = Sequence[KeyValue] | Cache
"""One pair [B, K, P, E] per layer, or a cache object, which may be empty."""


def key_values(past: Past | None) -> Sequence[KeyValue] | None:
    """Return the cached keys and values, one pair [B, K, P, E] per layer; None where nothing is cached.

    Raises:
        UnsupportedError: the object has dropped tokens in some layers, as one made for sliding windows does.
    """
    if past is None:
        return None
    if not isinstance(past, Cache):
        return past if len(past) else None
    length = past.get_seq_length()
    if length == 0:
        return None
    pairs = [(layer.keys, layer.values) for layer in past.layers]
    for index, (key, _) in enumerate(pairs):
        if key.shape[2] != length:
            raise UnsupportedError(
                f"past_key_values: layer {index} holds {key.shape[2]} of {length} tokens, and every layer must hold "
                "all; give a DynamicCache made without a config"
            )
    return pairs


def returned(past: Past | None, present: tuple[KeyValue, ...], new: int) -> tuple[KeyValue, ...] | Cache:
    """Return the new past in the form of the old one: the pairs, or the object with the ``new`` tokens added to it."""
    if not isinstance(past, Cache):
        return present
    for index, (key, value) in enumerate(present):
        past.update(key[:, :, -new:], value[:, :, -new:], index)
    return past
