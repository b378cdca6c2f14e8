"""Sequence classification: one label for each text."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...artifact import Manifest
from ...contract import OUTPUTS
from ...known_options import refuses_unknown_options
from ..numerics import softmax
from ..representation import short_repr
from .base import TaskModel
from .padded import encode_texts, one_or_many, run_batches


@dataclass(frozen=True)
class Classification:
    """The most likely label with its score, and the score of every label in the order of the logits.

    Scores are probabilities that sum to 1 (single label), independent probabilities (multi label), or the raw outputs
    (regression).
    """

    label: str
    score: float
    scores: dict[str, float]

    def __repr__(self) -> str:
        return short_repr(self)


class SequenceClassifier(TaskModel):
    """A loaded text-classification artifact."""

    @refuses_unknown_options
    def __call__(
        self, texts: str | Sequence[str], *, batch_size: int = 16, truncation: bool = False
    ) -> list[Classification]:
        """Classify texts; results keep the order. Texts of similar lengths are batched together.

        Raises:
            PromptError: a text without tokens, or longer than the context without ``truncation``.
            UsageError: batch_size below 1.
        """
        model = self.session.manifest.model
        encodings = encode_texts(one_or_many(texts), self.tokenizer, model, truncation)
        sequences = [encoding.ids for encoding in encodings]
        # Without a pad token the graph cannot tell padding from text and takes one sequence at a time.
        size = batch_size if model.pad_token_id is not None else min(batch_size, 1)
        results = dict(run_batches(self.session, sequences, OUTPUTS["text-classification"], size))
        return [self._classification(results[index][0]) for index in range(len(sequences))]

    def _classification(self, logits: NDArray[Any]) -> Classification:
        values = scores(logits, self.session.manifest.model.problem_type)
        labels = label_names(self.session.manifest, values.size)
        best = int(values.argmax())
        return Classification(labels[best], float(values[best]), dict(zip(labels, values.tolist(), strict=True)))


def scores(logits: NDArray[Any], problem_type: str | None) -> NDArray[np.float64]:
    """Return scores [L] from logits [L].

    A checkpoint without a problem type is a regression if it has one output, and single label otherwise, as in the loss
    of transformers; a softmax over one output would always be 1.
    """
    wide = np.asarray(logits, dtype=np.float64)
    if problem_type == "multi_label_classification":
        with np.errstate(over="ignore"):  # exp of a large number is infinity, and 1 / infinity is the right 0
            return np.asarray(1 / (1 + np.exp(-wide)))
    if problem_type == "regression" or (problem_type is None and wide.size == 1):
        return wide
    return softmax(wide)


def label_names(manifest: Manifest, count: int) -> tuple[str, ...]:
    """Return the manifest's labels, or transformers' placeholders where it has none."""
    return manifest.model.labels or tuple(f"LABEL_{index}" for index in range(count))
