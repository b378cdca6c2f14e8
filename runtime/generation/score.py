"""Scoring a text: the log-probability of each of its tokens, given those before it."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...errors import ContextLengthError, PromptError, UsageError
from ...machine import available_memory
from ..decoding.decoder import Decoder, open_decoder
from ..engine.session import Session
from ..representation import short_repr
from ..sequence.logprobs import Candidate, candidates, check_count, log_normalizer, token_text
from ..sequence.sampler import Floats
from ..text.prompts import Prompt, Prompts, as_list, token_ids
from ..text.tokenizer import Tokenizer

Tokens = NDArray[np.int64]

# The most memory for the logits of one chunk: 110 positions of a vocabulary of 150,000. Smaller chunks would make the
# matrix multiplications slower, larger ones would take more memory without a gain.
LOGITS_BYTES = 1 << 26
MIN_CHUNK = 16


@dataclass(frozen=True)
class Score:
    """The tokens that were scored, and the natural logarithms of their probabilities.

    ``context_token_ids`` were read but not scored: the context, or without one the text's first token. ``tokens`` are
    the texts of the scored tokens (U+FFFD for a part of a character). ``is_greedy`` is True where each scored token is
    the most likely one, so that greedy generation would give the same tokens. ``top`` has for each scored token the
    most likely ones at its position, in descending order, where they were requested.
    """

    context_token_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    tokens: tuple[str, ...]
    logprobs: tuple[float, ...]
    is_greedy: bool
    top: tuple[tuple[Candidate, ...], ...] | None = None

    def __repr__(self) -> str:
        return short_repr(self)

    @property
    def total(self) -> float:
        """The sum of the log-probabilities."""
        return float(sum(self.logprobs))

    @property
    def perplexity(self) -> float:
        """exp of the mean negative log-probability of the scored tokens."""
        return float(np.exp(-np.mean(self.logprobs)))


@dataclass
class Scored:
    """The log-probabilities of N tokens, True where each is the most likely one, and the ``top`` most likely ones."""

    logprobs: list[float]
    greedy: bool
    top: list[tuple[Candidate, ...]] | None


@dataclass(frozen=True)
class ScoringInput:
    """Tokens int64 [S], of which those from ``first`` on are scored and the others are context."""

    tokens: Tokens
    first: int


def score(
    session: Session,
    tokenizer: Tokenizer | None,
    text: Prompt | Prompts,
    context: Prompt | Prompts | None,
    window: int | None,
    stride: int | None,
    logprobs: int | None = None,
) -> Score | list[Score]:
    """Score one text or several; arguments and errors as ``TextGenerator.score``."""
    texts, listed = as_list(text)
    contexts = _contexts(context, len(texts), listed)
    check_count(logprobs, session.manifest.model.vocab_size)
    longest = session.manifest.model.context_length
    if window is not None and not 1 <= window <= longest:
        raise UsageError(f"window must be between 1 and the model's context of {longest:,}, not {window:,}")
    window = window or longest
    if stride is not None and not 1 <= stride <= window:
        raise UsageError(f"stride must be between 1 and the window of {window:,}, not {stride:,}")
    inputs = []
    for index, (one, before) in enumerate(zip(texts, contexts, strict=True)):
        name = f"text {index}" if listed else "the text"
        item = _input(session, tokenizer, one, before, name)
        if stride is None and item.tokens.size - 1 > window:
            raise ContextLengthError(
                f"{name} has {item.tokens.size:,} tokens, and the model reads {window:,} at once; "
                "shorten it, or give a stride, to score it in windows"
            )
        inputs.append(item)
    results = evaluate(session, tokenizer, inputs, window, stride or window, logprobs)
    scores = [_score(tokenizer, item, found) for item, found in zip(inputs, results, strict=True)]
    return scores if listed else scores[0]


def evaluate(
    session: Session,
    tokenizer: Tokenizer | None,
    inputs: list[ScoringInput],
    window: int,
    stride: int,
    top: int | None,
) -> Iterator[Scored]:
    """Yield for each input the log-probabilities of its tokens from ``first`` on, and the ``top`` most likely ones.

    A context that consecutive inputs share is read once.
    """
    facts = session.manifest.model
    longest = max(min(item.tokens.size - 1, window) for item in inputs)
    decoder = open_decoder(session, 1, longest, longest)
    cached: Tokens = np.empty(0, dtype=np.int64)  # the context in the KV cache
    for item in inputs:
        found = Scored([], True, None if top is None else [])
        for begin, first, end in score_windows(item.tokens.size, item.first, window, stride):
            # The last token of the context is read with the scored ones: its logits are those of the first of them.
            context, read = item.tokens[begin : first - 1], item.tokens[first - 1 : end - 1]
            if facts.length_dependent_rope:
                logits_of = _logits_at_once(session, decoder, item.tokens[begin : end - 1], read.size)
            else:
                known = context.size if np.array_equal(context, cached) else 0
                if decoder.rollback(0, known) < context.size:
                    decoder.prefill(0, context)
                cached = context
                logits_of = _logits_in_chunks(session, decoder, read)
            for token, logits in zip(item.tokens[first:end].tolist(), logits_of, strict=True):
                normalizer = log_normalizer(logits, facts.cache_dtype)
                found.logprobs.append(float(logits[token]) - normalizer)
                found.greedy = found.greedy and token == int(logits.argmax())
                if top is not None and found.top is not None:
                    found.top.append(candidates(logits, normalizer, top, tokenizer))
        yield found


def _logits_in_chunks(session: Session, decoder: Decoder, tokens: Tokens) -> Iterator[Floats]:
    """Read the tokens in chunks whose logits fit into ``LOGITS_BYTES``; yield the logits [V] of each token."""
    size = max(MIN_CHUNK, LOGITS_BYTES // (4 * session.manifest.model.vocab_size))
    for start in range(0, tokens.size, size):
        chunk = tokens[start : start + size]
        yield from decoder.extend(0, chunk, chunk.size)


def _logits_at_once(session: Session, decoder: Decoder, tokens: Tokens, count: int) -> Iterator[Floats]:
    """Read a text that cannot be divided; yield the logits [V] of its last ``count`` tokens.

    Raises:
        PromptError: there is not enough memory for the logits.
    """
    needed = 4 * count * session.manifest.model.vocab_size
    free = available_memory()
    if free is not None and 2 * needed > free:  # ONNX Runtime's buffer and its copy
        raise PromptError(
            f"the logits of {count:,} tokens need {2 * needed / 1e6:,.0f} MB at once, since this model's rotary "
            f"frequencies depend on the text's length, and {free / 1e6:,.0f} MB of memory are free; score less text"
        )
    decoder.rollback(0, 0)
    yield from decoder.extend(0, tokens, count)


def score_windows(size: int, first: int, window: int, stride: int) -> Iterator[tuple[int, int, int]]:
    """Yield windows (begin, first, end): the model reads tokens from ``begin`` on and scores those in [first, end).

    Every token is scored once. The first window scores as many as it can, each later one ``stride`` tokens, the last of
    them with ``window`` tokens before it in view, so that each token has at least ``window - stride + 1``.
    """
    end = min(size, max(window + 1, first + 1))
    while True:
        yield max(0, end - 1 - window), first, end
        if end == size:
            return
        first, end = end, min(size, end + stride)


def tokenize_pair(context: str, text: str, tokenizer: Tokenizer) -> ScoringInput:
    """Tokenize context and continuation as one text; a token that spans their border is scored."""
    whole, before = tokenizer.encode(context + text), tokenizer.encode(context)
    common = next((i for i, (a, b) in enumerate(zip(whole, before, strict=False)) if a != b), len(before))
    return ScoringInput(np.asarray(whole, dtype=np.int64), min(common, len(before)))


def _input(
    session: Session, tokenizer: Tokenizer | None, text: Prompt, context: Prompt | None, name: str
) -> ScoringInput:
    """Return the tokens of a text and its context; ``name`` is the text's name in messages."""
    facts = session.manifest.model
    tokens = token_ids(text, tokenizer, facts, name)
    if context is None:
        if tokens.size == 1:
            raise PromptError(f"{name} is a single token without a token before it; give a context")
        return ScoringInput(tokens, 1)
    before = token_ids(context, tokenizer, facts, f"the context of {name}")
    if isinstance(text, str) and isinstance(context, str) and tokenizer is not None:
        item = tokenize_pair(context, text, tokenizer)
        if 0 < item.first < item.tokens.size:
            return item
    return ScoringInput(np.concatenate([before, tokens]), before.size)


def _contexts(context: Prompt | Prompts | None, count: int, listed: bool) -> list[Prompt | None]:
    if context is None:
        return [None] * count
    found, is_list = as_list(context)
    if not is_list:
        return [found[0]] * count
    if not listed or len(found) != count:
        texts = f"{count} texts" if listed else "one text"
        raise UsageError(f"there are {len(found)} contexts for {texts}; give one for each, or one for all")
    return list(found)


def _score(tokenizer: Tokenizer | None, item: ScoringInput, found: Scored) -> Score:
    ids = item.tokens.tolist()
    scored = tuple(ids[item.first :])
    texts = tuple(token_text(tokenizer, token) for token in scored)
    top = None if found.top is None else tuple(found.top)
    return Score(tuple(ids[: item.first]), scored, texts, tuple(found.logprobs), found.greedy, top)
