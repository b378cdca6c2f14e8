"""Sequence classification: one label for a text."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...artifact import Manifest
from ...contract import OUTPUTS
from ..representation import short_repr
from .base import TaskModel
from .padded import encode_texts, one_or_many, run_batches, softmax


@dataclass(frozen=True)
class Classification:
    """The likeliest label with its score, and every label's score in the order of the logits.

    Scores are probabilities that sum to 1 (single label), independent probabilities (multi label), or the raw outputs
    (regression).
    """

    label: str
    score: float
    scores: dict[str, float]

    __repr__ = short_repr


class SequenceClassifier(TaskModel):
    """A loaded text-classification artifact."""

    def __call__(
        self, texts: str | Sequence[str], *, batch_size: int = 16, truncation: bool = False
    ) -> list[Classification]:
        """Classify texts; results keep their order. Batches are made of texts of similar lengths.

        Raises:
            PromptError: a text without tokens, or longer than the context (unless ``truncation`` cuts it).
            UsageError: batch_size below 1.
        """
        model = self.session.manifest.model
        encodings = encode_texts(one_or_many(texts), self.tokenizer, model, truncation)
        rows = [encoding.ids for encoding in encodings]
        # Without a pad token the graph cannot tell padding from text and takes one row at a time.
        size = batch_size if model.pad_token_id is not None else min(batch_size, 1)
        results = dict(run_batches(self.session, rows, OUTPUTS["text-classification"], size))
        return [self._classification(results[index][0]) for index in range(len(rows))]

    def _classification(self, logits: NDArray[Any]) -> Classification:
        values = scores(logits, self.session.manifest.model.problem_type)
        labels = label_names(self.session.manifest, values.size)
        best = int(values.argmax())
        return Classification(labels[best], float(values[best]), dict(zip(labels, values.tolist(), strict=True)))


def scores(logits: NDArray[Any], problem_type: str | None) -> NDArray[np.float64]:
    """Scores [L] from logits [L].

    A checkpoint that names no problem is a regression if it has one output, and single label otherwise: so does
    transformers' loss decide, and a softmax over one output would always say 1.
    """
    wide = np.asarray(logits, dtype=np.float64)
    if problem_type == "multi_label_classification":
        with np.errstate(over="ignore"):  # exp of a large number is infinity, and 1 / infinity is the right 0
            return np.asarray(1 / (1 + np.exp(-wide)))
    if problem_type == "regression" or (problem_type is None and wide.size == 1):
        return wide
    return softmax(wide)


def label_names(manifest: Manifest, count: int) -> tuple[str, ...]:
    """The manifest's labels, or transformers' placeholders where it has none."""
    return manifest.model.labels or tuple(f"LABEL_{index}" for index in range(count))
