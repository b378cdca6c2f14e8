"""Texts of the task heads: encoded, checked, batched by length, and padded on the right."""

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
    """Encode texts, each of at least one token and at most the context's length.

    Raises:
        PromptError: a text without tokens, or one that is too long and not to be truncated.
    """
    encodings = []
    for index, text in enumerate(texts):
        name = "the text" if len(texts) == 1 else f"text {index}"
        if not isinstance(text, str):
            raise PromptError(f"{name} is {type(text).__name__}; give text")
        if not truncation:
            tokenizer.check_length(text, facts.context_length, name)
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
    """Return the texts as a list; a single text is a list of one."""
    return [texts] if isinstance(texts, str) else list(texts)


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
