"""Texts of the task heads: encoded, checked, batched by length, and padded on the right."""

from collections.abc import Iterator, Sequence
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...artifact import ModelFacts
from ...contract import ATTENTION_MASK, INPUT_IDS
from ...errors import ContextLengthError, PromptError, UsageError
from ..engine.session import Session
from ..text.prompts import Prompt, check_range, token_ids
from ..text.sequences import TokenSequence, cut_to, join
from ..text.tokenizer import Tokenizer

Tokens = NDArray[np.int64]

Texts = str | Sequence[int] | Sequence[Prompt]
"""A text, its token ids, or a list of either."""


def encode_texts(
    texts: Sequence[Prompt],
    tokenizer: Tokenizer,
    facts: ModelFacts,
    truncation: bool,
    *,
    text_pairs: Sequence[Prompt] | None = None,
    max_length: int | None = None,
) -> list[TokenSequence]:
    """Encode texts, or pairs of texts, each of at least one token and at most the context's length.

    Token ids are taken as they are, special tokens included; they are not for pairs.

    Args:
        truncation: cut off what is too long, the longer text of a pair first; special tokens stay.
        text_pairs: the second text of each.
        max_length: the most tokens of a sequence, where that is less than the context.

    Raises:
        PromptError: a text without tokens.
        ContextLengthError: a text that is too long and not to be truncated.
    """
    limit = min(facts.context_length, max_length or facts.context_length)
    encoded = []
    for index, text in enumerate(texts):
        name = "the text" if len(texts) == 1 else f"text {index}"
        if text_pairs is None and not isinstance(text, str):
            sequence = _given(text, facts, limit, truncation, name)
        else:
            both = [text] if text_pairs is None else [text, text_pairs[index]]
            sequence = _encode(both, tokenizer, limit, facts.context_length, truncation, name)
        check_range(np.asarray(sequence.ids, dtype=np.int64), facts, name)
        encoded.append(sequence)
    return encoded


def _given(tokens: Sequence[int], facts: ModelFacts, limit: int, truncation: bool, name: str) -> TokenSequence:
    """Return the sequence of token ids, which have no characters."""
    ids = token_ids(tokens, None, facts, name).tolist()
    if len(ids) > limit and not truncation:
        raise _too_long(name, len(ids), limit, facts.context_length)
    ids = ids[:limit]
    return TokenSequence(ids, [(0, 0)] * len(ids), [None] * len(ids), [None] * len(ids))


def _encode(
    texts: Sequence[Prompt], tokenizer: Tokenizer, limit: int, context: int, truncation: bool, name: str
) -> TokenSequence:
    parts = []
    for text in texts:
        if not isinstance(text, str):
            raise PromptError(f"{name} is {type(text).__name__}; give text")
        if not truncation:
            tokenizer.check_length(text, limit, name)
        parts.append(tokenizer.encode_with_offsets(text, add_special_tokens=False))
    first, second = parts[0], parts[1] if len(parts) > 1 else None
    added = tokenizer.backend.num_special_tokens_to_add(second is not None)
    length = sum(map(len, parts)) + added
    if length == 0:
        raise PromptError(f"{name} is empty: it has no tokens; give at least one word")
    if length > limit:
        if not truncation:
            raise _too_long(name, length, limit, context)
        cut_to(first, second, max(limit - added, 0))
    return join(tokenizer.backend, first, second)


def _too_long(name: str, length: int, limit: int, context: int) -> ContextLengthError:
    limited = "the model's context is" if limit == context else "the model reads"
    return ContextLengthError(
        f"{name} has {length:,} tokens, {limited} {limit:,}; shorten it, or cut it off with truncation=True"
    )


def one_or_many(texts: Texts) -> list[Prompt]:
    """Return the texts as a list; a single text, or its token ids, is a list of one."""
    if isinstance(texts, str):
        return [texts]
    items: list[Any] = list(texts)
    return [items] if items and isinstance(items[0], Integral) else items


def paired(texts: Texts, text_pairs: str | Sequence[str] | None) -> tuple[list[Prompt], list[Prompt] | None]:
    """Return as many first as second texts, if there are second ones; a single text is repeated for all of the others.

    Raises:
        UsageError: there are not as many of both.
    """
    if text_pairs is None:
        return one_or_many(texts), None
    first, second = one_or_many(texts), one_or_many(text_pairs)
    if isinstance(texts, str):
        first = first * len(second)
    elif isinstance(text_pairs, str):
        second = second * len(first)
    if len(first) != len(second):
        raise UsageError(f"there are {len(first)} texts and {len(second)} text_pairs; give one for each text, or one")
    return first, second


def run_batches(
    session: Session, sequences: Sequence[Sequence[int]], outputs: tuple[str, ...], batch_size: int
) -> Iterator[tuple[int, list[NDArray[Any]]]]:
    """Run token sequences in batches of similar lengths; yield each one's index with its slice of every output.

    A slice still has padding: a sequence of S tokens has the first S positions. The order is that of the lengths.

    Raises:
        UsageError: batch_size below 1.
    """
    if batch_size < 1:
        raise UsageError(f"batch_size must be at least 1, not {batch_size}")
    order = sorted(range(len(sequences)), key=lambda index: len(sequences[index]))
    for start in range(0, len(order), batch_size):
        members = order[start : start + batch_size]
        tokens, mask = pad([sequences[index] for index in members], session.manifest.model.pad_token_id or 0)
        results = session.run({INPUT_IDS: tokens, ATTENTION_MASK: mask}, outputs)
        for position, index in enumerate(members):
            yield index, [result[position] for result in results]


def pad(sequences: Sequence[Sequence[int]], pad_token_id: int) -> tuple[Tokens, Tokens]:
    """Return token ids and attention mask, int64 [B, S], padded on the right."""
    tokens = np.full((len(sequences), max(map(len, sequences))), pad_token_id, dtype=np.int64)
    mask = np.zeros_like(tokens)
    for index, sequence in enumerate(sequences):
        tokens[index, : len(sequence)] = sequence
        mask[index, : len(sequence)] = 1
    return tokens, mask
