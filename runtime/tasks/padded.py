"""Texts for the task heads: encoded, checked, grouped by length, right-padded, and back in the caller's order."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding

from ...artifact import ModelFacts
from ...contract import ATTENTION_MASK, INPUT_IDS
from ...errors import PromptError, UsageError
from ..engine.session import Session
from ..text.prompts import check_range
from ..text.tokenizer import Tokenizer

Tokens = NDArray[np.int64]


def encode_texts(texts: Sequence[str], tokenizer: Tokenizer, facts: ModelFacts, truncation: bool) -> list[Encoding]:
    """Encodings of at least one token and at most the context's length.

    Raises:
        PromptError: a text without tokens, or one too long where ``truncation`` is off.
    """
    encodings = []
    for index, text in enumerate(texts):
        name = "the text" if len(texts) == 1 else f"text {index}"
        if not isinstance(text, str):
            raise PromptError(f"{name} is {type(text).__name__}; give text")
        encoding = tokenizer.encode_with_offsets(text)
        if not encoding.ids:
            raise PromptError(f"{name} is empty: it has no tokens; give at least one word")
        if len(encoding) > facts.context_length:
            if not truncation:
                raise PromptError(
                    f"{name} has {len(encoding):,} tokens, the model's context is {facts.context_length:,}; "
                    "shorten it, or cut it off with truncation=True"
                )
            encoding.truncate(facts.context_length)
        check_range(np.asarray(encoding.ids, dtype=np.int64), facts, name)
        encodings.append(encoding)
    return encodings


def one_or_many(texts: str | Sequence[str]) -> list[str]:
    """A single text is a list of one."""
    return [texts] if isinstance(texts, str) else list(texts)


def run_batches(
    session: Session, rows: Sequence[Sequence[int]], outputs: tuple[str, ...], batch_size: int
) -> Iterator[tuple[int, list[NDArray[Any]]]]:
    """Run token rows in batches of similar lengths; yields each row's index with its slice of every output.

    An output's slice still has the padding: a row of S tokens owns the first S positions. The order is that of the
    lengths, not of ``rows``.

    Raises:
        UsageError: batch_size below 1.
    """
    if batch_size < 1:
        raise UsageError(f"batch_size must be at least 1, not {batch_size}")
    order = sorted(range(len(rows)), key=lambda index: len(rows[index]))
    for start in range(0, len(order), batch_size):
        members = order[start : start + batch_size]
        tokens, mask = pad([rows[index] for index in members], session.manifest.model.pad_token_id or 0)
        results = session.run({INPUT_IDS: tokens, ATTENTION_MASK: mask}, outputs)
        for place, index in enumerate(members):
            yield index, [result[place] for result in results]


def pad(rows: Sequence[Sequence[int]], pad_token_id: int) -> tuple[Tokens, Tokens]:
    """Token ids and attention mask, int64 [B, S], padded on the right."""
    tokens = np.full((len(rows), max(map(len, rows))), pad_token_id, dtype=np.int64)
    mask = np.zeros_like(tokens)
    for place, row in enumerate(rows):
        tokens[place, : len(row)] = row
        mask[place, : len(row)] = 1
    return tokens, mask


def softmax(logits: NDArray[Any]) -> NDArray[np.float64]:
    """Over the last axis, in float64."""
    wide = np.asarray(logits, dtype=np.float64)
    weights = np.exp(wide - wide.max(axis=-1, keepdims=True))
    result: NDArray[np.float64] = weights / weights.sum(axis=-1, keepdims=True)
    return result
