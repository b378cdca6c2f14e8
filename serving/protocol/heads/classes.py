"""Classifications: a call's texts or pairs to labels, scores and ranks."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ....runtime.tasks.classify import Classification, SequenceClassifier
from ....runtime.tasks.embed import Embedder
from ....runtime.text.prompts import Prompt
from ...errors import ApiError
from ...steps import Steps, in_steps
from .embedding import embed


@dataclass(frozen=True)
class Classified:
    """The classifications of a call's texts, and the tokens that were read."""

    results: list[Classification]
    tokens: int


@dataclass(frozen=True)
class Scores:
    """The scores of a call's pairs, and the tokens that were read."""

    values: list[float]
    tokens: int


def classify(
    model: SequenceClassifier,
    texts: Sequence[Prompt],
    *,
    pairs: Sequence[str] | None = None,
    raw: bool = False,
    truncation: bool = False,
) -> Steps[Classified]:
    """Classify texts, or pairs of texts; ``raw`` leaves the outputs as they are."""
    lengths = [len(one) for one in model.encode(texts, text_pairs=pairs, truncation=truncation)]

    def call(members: list[int]) -> Sequence[Classification]:
        return model(
            [texts[index] for index in members],
            text_pairs=None if pairs is None else [pairs[index] for index in members],
            function_to_apply="none" if raw else None,
            truncation=truncation,
            batch_size=len(members),
        )

    results = yield from in_steps(lengths, call)
    return Classified(results, sum(lengths))


def score(
    model: SequenceClassifier | Embedder, first: Sequence[str], second: Sequence[str], *, raw: bool, truncation: bool
) -> Steps[Scores]:
    """Score pairs: by a classifier with one label, or by the cosine of an embedder's vectors.

    Raises:
        ApiError: the classifier has several labels.
    """
    if isinstance(model, Embedder):
        found = yield from embed(model, [*first, *second], normalize=True, truncation=truncation)
        both = np.array(found.vectors, dtype=np.float32)
        return Scores((both[: len(first)] * both[len(first) :]).sum(axis=1).tolist(), found.tokens)
    labels = model.manifest.model.labels
    if len(labels) > 1:
        raise ApiError(
            f"the model has {len(labels)} labels, and a score is that of a model with one; use /v1/classify",
            param="model",
        )
    classified = yield from classify(model, first, pairs=second, raw=raw, truncation=truncation)
    return Scores([one.score for one in classified.results], classified.tokens)


def class_items(results: Sequence[Classification]) -> list[dict[str, Any]]:
    """Return the items of ``data`` of ``/v1/classify``."""
    return [
        {
            "index": index,
            "label": result.label,
            "probs": list(result.scores.values()),
            "num_classes": len(result.scores),
        }
        for index, result in enumerate(results)
    ]


def ranked(scores: Sequence[float], top_n: int | None) -> list[int]:
    """Return the positions of the ``top_n`` best scores in descending order, ties by position; None or 0 for all."""
    order = sorted(range(len(scores)), key=lambda index: -scores[index])
    return order[: top_n or len(order)]
