"""Sequence classification: one label for each text, or for each pair of texts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ...artifact import Manifest
from ...contract import OUTPUTS
from ...errors import ArtifactError, UsageError
from ...known_options import refuses_unknown_options
from ..numerics import softmax
from ..representation import short_repr
from ..text.sequences import TokenSequence
from .base import TaskModel
from .padded import Texts, encode_texts, paired, run_batches

ScoreFunction = Literal["none", "sigmoid", "softmax"]


@dataclass(frozen=True)
class Classification:
    """The most likely label with its score, and the score of every label in the order of the logits.

    With ``top_k`` only the best labels have a score here, in descending order.
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
        self,
        texts: Texts,
        *,
        text_pairs: str | Sequence[str] | None = None,
        function_to_apply: ScoreFunction | None = None,
        top_k: int | None = None,
        batch_size: int = 16,
        truncation: bool = False,
    ) -> list[Classification]:
        """Classify texts; results keep the order. Texts of similar lengths are batched together.

        Args:
            texts: a text or a list of texts; token ids, or a list of these, are taken as they are.
            text_pairs: the second text of each pair, for rerankers and other models of pairs; a single text goes with
                each of the others.
            function_to_apply: what makes scores of logits: "none" (raw scores), "sigmoid" or "softmax". By default that
                of transformers' pipeline: none for a regression, sigmoid for a multi-label model and for one with a
                single label, softmax otherwise.
            top_k: the number of labels in ``scores``; all by default.
            truncation: cut off a text that is longer than the context; of a pair the longer text.

        Raises:
            PromptError: a text without tokens, or longer than the context without ``truncation``.
            UsageError: an unknown function, batch_size or top_k below 1, or another number of text_pairs than of texts.
        """
        if function_to_apply is not None and function_to_apply not in get_args(ScoreFunction):
            choices = ", ".join(map(repr, get_args(ScoreFunction)))
            raise UsageError(f"function_to_apply is {function_to_apply!r}; choose one of {choices}")
        if top_k is not None and top_k < 1:
            raise UsageError(f"top_k must be at least 1, not {top_k}")
        model = self.manifest.model
        sequences = [one.ids for one in self.encode(texts, text_pairs=text_pairs, truncation=truncation)]
        # Without a pad token the graph cannot tell padding from text and takes one sequence at a time.
        size = batch_size if model.pad_token_id is not None else min(batch_size, 1)
        results = dict(run_batches(self.session, sequences, OUTPUTS["text-classification"], size))
        return [self._classification(results[index][0], function_to_apply, top_k) for index in range(len(sequences))]

    def encode(
        self, texts: Texts, *, text_pairs: str | Sequence[str] | None = None, truncation: bool = False
    ) -> list[TokenSequence]:
        """Return the tokens that a call reads; arguments and errors as there."""
        first, second = paired(texts, text_pairs)
        return encode_texts(first, self.tokenizer, self.manifest.model, truncation, text_pairs=second)

    def _classification(
        self, logits: NDArray[Any], function: ScoreFunction | None, top_k: int | None
    ) -> Classification:
        values = scores(logits, function or default_function(self.manifest.model.problem_type, logits.size))
        labels = label_names(self.manifest, values.size)
        best = int(values.argmax())
        # A stable sort, so that of equal scores the first label is first.
        order = range(values.size) if top_k is None else np.argsort(-values, kind="stable")[:top_k]
        chosen = {labels[index]: float(values[index]) for index in order}
        return Classification(labels[best], float(values[best]), chosen)


def default_function(problem_type: str | None, labels: int) -> ScoreFunction:
    """Return the function that makes scores, as transformers' TextClassificationPipeline chooses it."""
    if problem_type == "regression":
        return "none"
    return "sigmoid" if problem_type == "multi_label_classification" or labels == 1 else "softmax"


def scores(logits: NDArray[Any], function: ScoreFunction) -> NDArray[np.float64]:
    """Return scores [L] from logits [L]."""
    wide = np.asarray(logits, dtype=np.float64)
    if function == "sigmoid":
        with np.errstate(over="ignore"):  # exp of a large number is infinity, and 1 / infinity is the right 0
            return np.asarray(1 / (1 + np.exp(-wide)))
    return softmax(wide) if function == "softmax" else wide


def label_names(manifest: Manifest, count: int) -> tuple[str, ...]:
    """Return the manifest's labels, or transformers' placeholders where it has none.

    Raises:
        ArtifactError: there are more or fewer labels than the model's ``count`` outputs.
    """
    labels = manifest.model.labels or tuple(f"LABEL_{index}" for index in range(count))
    if len(labels) != count:
        raise ArtifactError(
            f"the manifest has {len(labels)} labels and the model {count} outputs; export the model again"
        )
    return labels
