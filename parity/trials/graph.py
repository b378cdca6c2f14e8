"""The artifact's graph by its contract: tokens, mask and past in; outputs and present out.

This is how other programs than ours call the graph. The runtime's own way, with its shared buffers, is ``Decoder``'s.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...runtime.decoding.cache import empty_past
from ...runtime.engine.session import Session

Floats = NDArray[np.float32]
Tokens = NDArray[np.int64]


class Graph:
    """Calls in a row, each with what the one before it left; of a graph without a cache, calls by themselves."""

    def __init__(self, session: Session, outputs: tuple[str, ...]) -> None:
        self._session = session
        self._outputs = outputs
        layers = range(session.manifest.model.num_hidden_layers)
        generates = session.manifest.task == "text-generation"
        names = [f"{i}.{part}" for i in layers for part in ("key", "value")] if generates else []
        self._inputs = [f"past_key_values.{name}" for name in names]
        self._presents = [f"present.{name}" for name in names]
        self._past: list[Any] = []

    def __call__(self, tokens: Tokens, mask: Tokens, keep: int = 0) -> list[Floats]:
        """The outputs, batch first, of tokens int64 [B, S] behind the past, with the mask int64 [B, T].

        Args:
            keep: of a causal LM, compute logits for so many last positions only; 0 for all.
        """
        make = self._session.ort.OrtValue.ortvalue_from_numpy
        feeds = {"input_ids": make(np.ascontiguousarray(tokens)), "attention_mask": make(np.ascontiguousarray(mask))}
        if self._inputs:
            past = self._past or [empty_past(self._session, len(tokens)) for _ in self._inputs]
            feeds |= dict(zip(self._inputs, past, strict=True))
            feeds["logits_to_keep"] = make(np.array([keep], dtype=np.int64))
        found = self._session.run_values(feeds, (*self._outputs, *self._presents))
        self._past = found[len(self._outputs) :]
        return [value.numpy() for value in found[: len(self._outputs)]]
