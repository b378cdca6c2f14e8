"""Prompts as callers give them, text or token ids, and the token ids of each."""

from collections.abc import Iterator, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ...artifact import ModelFacts
from ...errors import ContextLengthError, PromptError
from .tokenizer import Tokenizer

Prompt = str | Sequence[int]
Prompts = list[str] | tuple[str, ...] | Sequence[Sequence[int]] | Iterator[str] | Iterator[Sequence[int]]


def as_list(prompt: Prompt | Prompts) -> tuple[list[Prompt], bool]:
    """Return the prompts as a list, and True where several were given, False for a single text or its token ids.

    Raises:
        PromptError: an empty list, which may be either.
    """
    if isinstance(prompt, str):
        return [prompt], False
    iterated = isinstance(prompt, Iterator)
    prompts = list(prompt) if isinstance(prompt, Iterator) else prompt
    if len(prompts) == 0:
        raise PromptError("there is no prompt; give text, token ids, or a list of prompts")
    # What has a text among its elements is a list of prompts, also where the first one is of a wrong kind.
    if iterated or np.ndim(cast(Any, prompts[0])) or any(isinstance(one, str) for one in prompts):
        return cast(list[Prompt], list(prompts)), True
    return [cast(Prompt, prompts)], False


def prompt_tokens(prompt: Prompt, tokenizer: Tokenizer | None, facts: ModelFacts, name: str) -> NDArray[np.int64]:
    """Return the token ids of a prompt, int64 [S]; ``name`` is its name in messages.

    Raises:
        PromptError: as ``token_ids``.
        ContextLengthError: the context has no room for a new token.
    """
    if isinstance(prompt, str) and tokenizer is not None:
        tokenizer.check_length(prompt, facts.context_length - 1, name)
    tokens = token_ids(prompt, tokenizer, facts, name)
    if tokens.size >= facts.context_length:
        raise ContextLengthError(
            f"{name} has {tokens.size:,} tokens, the model's context is {facts.context_length:,}, "
            "and that leaves no room for a new one; shorten it"
        )
    return tokens


def token_ids(prompt: Prompt, tokenizer: Tokenizer | None, facts: ModelFacts, name: str) -> NDArray[np.int64]:
    """Return the token ids of a text of any length, int64 [S]; ``name`` is its name in messages.

    Raises:
        PromptError: text without a tokenizer, no tokens, or ids out of range.
    """
    if isinstance(prompt, str):
        if tokenizer is None:
            raise PromptError(f"{name} is text, and this artifact has no tokenizer.json; give token ids")
        tokens = np.asarray(tokenizer.encode(prompt), dtype=np.int64)
    else:
        tokens = _integers(prompt, name)
    if tokens.size == 0:
        raise PromptError(f"{name} is empty: it has no tokens; give at least one")
    check_range(tokens, facts, name)
    return tokens


def check_range(tokens: NDArray[np.int64], facts: ModelFacts, name: str) -> None:
    """Check that token ids are in the vocabulary; ONNX Runtime would look up another token's embedding, or zeros.

    Raises:
        PromptError: an id is negative or not below the vocabulary's size.
    """
    wrong = tokens[(tokens < 0) | (tokens >= facts.vocab_size)]
    if wrong.size:
        raise PromptError(
            f"{name}: token id {wrong[0]} is out of range, the model's ids are 0 to {facts.vocab_size - 1}; "
            "tokenize the text with this model's own tokenizer"
        )


def _integers(prompt: Sequence[int], name: str) -> NDArray[np.int64]:
    try:
        tokens = np.asarray(prompt)
    except ValueError:
        tokens = np.empty((0, 0))
    if tokens.ndim != 1 or (tokens.size and not np.issubdtype(tokens.dtype, np.integer)):
        raise PromptError(f"{name} must be text or a flat list of whole numbers; give token ids as integers")
    return tokens.astype(np.int64)
