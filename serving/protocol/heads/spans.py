"""Spans of text: the tags of tokens or entities, and the answers to questions."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ....runtime.tasks.answer import Answer, QuestionAnswerer
from ....runtime.tasks.entities import Aggregation, Tag
from ....runtime.tasks.tag import TokenClassifier
from ...errors import ApiError
from ...steps import Steps, in_steps
from .bodies import AnswerBody

MOST_WINDOWS = 256
"""How many windows of a context one call reads: about 60,000 tokens by default."""


@dataclass(frozen=True)
class Tagged:
    """The tags of a call's texts, and the tokens that were read."""

    results: list[list[Tag]]
    tokens: int


@dataclass(frozen=True)
class Answered:
    """The answers to a call's question, and the tokens that were read."""

    results: list[Answer]
    tokens: int


def tag(model: TokenClassifier, texts: Sequence[str], aggregation: Aggregation, truncation: bool) -> Steps[Tagged]:
    """Tag texts."""
    lengths = [len(one) for one in model.encode(texts, truncation=truncation)]

    def call(members: list[int]) -> Sequence[list[Tag]]:
        chosen = [texts[index] for index in members]
        return model(chosen, aggregate=aggregation, truncation=truncation, batch_size=len(members))

    results = yield from in_steps(lengths, call)
    return Tagged(results, sum(lengths))


def answer(model: QuestionAnswerer, body: AnswerBody) -> Steps[Answered]:
    """Answer a question about a context.

    Raises:
        ApiError: the context has too many windows.
    """
    windows = model.encode(body.question, body.context, window=body.max_seq_len, stride=body.doc_stride)
    if len(windows) > MOST_WINDOWS:
        raise ApiError(
            f"the context is read in {len(windows):,} windows of {body.max_seq_len:,} tokens, and {MOST_WINDOWS} are "
            "the most; shorten it, or give a larger max_seq_len",
            param="context",
            code="context_length_exceeded",
        )
    yield
    results = model(
        body.question,
        body.context,
        top_k=body.top_k,
        max_answer_length=body.max_answer_len,
        window=body.max_seq_len,
        stride=body.doc_stride,
        align_to_words=body.align_to_words,
    )
    return Answered(results, sum(map(len, windows)))


def tag_items(results: Sequence[Sequence[Tag]]) -> list[dict[str, Any]]:
    """Return the items of ``data`` of ``/v1/token_classify``."""
    return [
        {"index": index, "object": "token_classification", "tags": [vars(one) for one in tags]}
        for index, tags in enumerate(results)
    ]


def answer_items(results: Sequence[Answer]) -> list[dict[str, Any]]:
    """Return the items of ``data`` of ``/v1/answer``, likeliest first."""
    return [{"index": index, "object": "answer", **vars(one)} for index, one in enumerate(results)]
