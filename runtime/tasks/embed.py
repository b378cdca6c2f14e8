"""Embeddings: one vector for each text, pooled from the last hidden states."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ...contract import OUTPUTS
from ...errors import UsageError
from ...known_options import refuses_unknown_options
from .base import TaskModel
from .padded import encode_texts, one_or_many, run_batches

Pooling = Literal["last", "mean"]


class Embedder(TaskModel):
    """A loaded feature-extraction artifact."""

    @refuses_unknown_options
    def __call__(
        self,
        texts: str | Sequence[str],
        *,
        pooling: Pooling = "last",
        normalize: bool = True,
        batch_size: int = 16,
        truncation: bool = False,
    ) -> NDArray[np.float32]:
        """Embed N texts as float32 [N, D], in order.

        Args:
            pooling: "last" for the hidden state of the last token, which attends to the whole text; "mean" for the mean
                of all.
            normalize: scale each vector to length 1, so that a dot product is the cosine.

        Raises:
            PromptError: a text without tokens, or longer than the context without ``truncation``.
            UsageError: an unknown pooling, or batch_size below 1.
        """
        if pooling not in ("last", "mean"):
            raise UsageError(f"unknown pooling {pooling!r}; use 'last' or 'mean'")
        model = self.manifest.model
        encoded = encode_texts(one_or_many(texts), self.tokenizer, model, truncation)
        sequences = [one.ids for one in encoded]
        vectors = np.zeros((len(sequences), model.hidden_size), dtype=np.float32)
        for index, (hidden,) in run_batches(self.session, sequences, OUTPUTS["feature-extraction"], batch_size):
            vectors[index] = pool(hidden[: len(sequences[index])], pooling)
        if normalize:
            # A zero vector stays as it is.
            vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.finfo(np.float32).tiny)
        return vectors


def pool(hidden: NDArray[Any], pooling: Pooling) -> NDArray[Any]:
    """Pool the hidden states [S, D] of a text's tokens to one vector [D]."""
    return np.asarray(hidden[-1] if pooling == "last" else hidden.mean(axis=0))
