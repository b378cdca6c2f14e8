"""Calls of the artifact's graph by its contract: tokens, mask and past in; outputs and present out.

Other programs call the graph in this way. The runtime's ``Decoder`` shares its buffers instead.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...contract import ATTENTION_MASK, INPUT_IDS, LOGITS_TO_KEEP, PAST, PRESENT, cache_names, has_cache
from ...runtime.decoding.cache import empty_past
from ...runtime.engine.session import Session

Floats = NDArray[np.float32]
Tokens = NDArray[np.int64]


class GraphCalls:
    """Consecutive calls, each with the KV cache of the one before; independent calls if the graph has no cache."""

    def __init__(self, session: Session, outputs: tuple[str, ...]) -> None:
        self._session = session
        self._outputs = outputs
        layers = session.manifest.model.num_hidden_layers if has_cache(session.manifest.task) else 0
        self._inputs = cache_names(PAST, layers)
        self._presents = cache_names(PRESENT, layers)
        self._past: list[Any] = []

    def __call__(self, tokens: Tokens, mask: Tokens, keep: int = 0) -> list[Floats]:
        """Return the outputs, batch first, of tokens int64 [B, S] after the past, with the mask int64 [B, T].

        Args:
            keep: number of last positions for which a causal LM computes logits; 0 for all.
        """
        make = self._session.ort.OrtValue.ortvalue_from_numpy
        feeds = {INPUT_IDS: make(np.ascontiguousarray(tokens)), ATTENTION_MASK: make(np.ascontiguousarray(mask))}
        if self._inputs:
            past = self._past or [empty_past(self._session, len(tokens)) for _ in self._inputs]
            feeds |= dict(zip(self._inputs, past, strict=True))
            feeds[LOGITS_TO_KEEP] = make(np.array([keep], dtype=np.int64))
        found = self._session.run_values(feeds, (*self._outputs, *self._presents))
        self._past = found[len(self._outputs) :]
        return [value.numpy() for value in found[: len(self._outputs)]]
