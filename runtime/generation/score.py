"""How likely a text is: the log-probability of each of its tokens, given those before it."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...errors import PromptError, UsageError
from ..decoding.decoder import Decoder, open_decoder
from ..engine.machine import available_memory
from ..engine.session import Session
from ..representation import short_repr
from ..sequence.logprobs import log_normaliser, token_text
from ..sequence.sampler import Floats
from ..text.prompts import Prompt, Prompts, as_list, token_ids
from ..text.tokenizer import Tokenizer

Tokens = NDArray[np.int64]

# What the logits of one piece of text may take: 110 positions of a vocabulary of 150,000. Fewer would make the matrix
# products slower, more would take memory for nothing.
LOGITS_BYTES = 1 << 26
LEAST_PIECE = 16


@dataclass(frozen=True)
class Score:
    """The tokens that were scored, and the natural logarithms of their probabilities.

    ``context_token_ids`` were only read: the context, or without one the text's first token, before which nothing
    stands. ``tokens`` are the scored tokens' texts (a part of a character is U+FFFD). ``is_greedy`` says that each
    scored token is the likeliest in its place, so that greedy generation would give just these.
    """

    context_token_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    tokens: tuple[str, ...]
    logprobs: tuple[float, ...]
    is_greedy: bool

    __repr__ = short_repr

    @property
    def total(self) -> float:
        """The log-probability of all scored tokens together."""
        return float(sum(self.logprobs))

    @property
    def perplexity(self) -> float:
        """exp of the mean negative log-probability of a scored token."""
        return float(np.exp(-np.mean(self.logprobs)))


@dataclass(frozen=True)
class Task:
    """Tokens int64 [S] to score from ``first`` on; those before it are the context."""

    tokens: Tokens
    first: int


def score(
    session: Session,
    tokenizer: Tokenizer | None,
    text: Prompt | Prompts,
    context: Prompt | Prompts | None,
    window: int | None,
    stride: int | None,
) -> Score | list[Score]:
    """As ``TextGenerator.score``."""
    texts, listed = as_list(text)
    contexts = _contexts(context, len(texts), listed)
    longest = session.manifest.model.context_length
    if window is not None and not 1 <= window <= longest:
        raise UsageError(f"window must be between 1 and the model's context of {longest:,}, not {window:,}")
    window = window or longest
    if stride is not None and not 1 <= stride <= window:
        raise UsageError(f"stride must be between 1 and the window of {window:,}, not {stride:,}")
    tasks = []
    for index, (one, before) in enumerate(zip(texts, contexts, strict=True)):
        name = f"text {index}" if listed else "the text"
        task = _task(session, tokenizer, one, before, name)
        if stride is None and task.tokens.size - 1 > window:
            raise PromptError(
                f"{name} has {task.tokens.size:,} tokens, and the model reads {window:,} at once; "
                "shorten it, or give a stride, to score it in windows"
            )
        tasks.append(task)
    results = evaluate(session, tasks, window, stride or window)
    scores = [_score(tokenizer, task, *found) for task, found in zip(tasks, results, strict=True)]
    return scores if listed else scores[0]


def evaluate(
    session: Session, tasks: list[Task], window: int, stride: int
) -> Iterator[tuple[NDArray[np.float64], bool]]:
    """Of each task the log-probabilities [S - first], and whether each token is the likeliest.

    A context that tasks in a row have in common is read once.
    """
    longest = max(min(task.tokens.size - 1, window) for task in tasks)
    decoder = open_decoder(session, 1, longest, longest)
    held: Tokens = np.empty(0, dtype=np.int64)  # the context that was read last
    for task in tasks:
        found, greedy = [], True
        for begin, first, end in windows(task.tokens.size, task.first, window, stride):
            # The last token of the context goes with the scored ones: its logits say how likely the first of them is.
            context, read = task.tokens[begin : first - 1], task.tokens[first - 1 : end - 1]
            if session.manifest.model.length_dependent_rope:
                pieces = _whole(session, decoder, task.tokens[begin : end - 1], read.size)
            else:
                known = context.size if np.array_equal(context, held) else 0
                if decoder.rollback(0, known) < context.size:
                    decoder.prefill(0, context)
                held = context
                pieces = _pieces(session, decoder, read)
            for token, logits in zip(task.tokens[first:end].tolist(), pieces, strict=True):
                found.append(float(logits[token]) - log_normaliser(logits))
                greedy = greedy and token == int(logits.argmax())
        yield np.array(found), greedy


def _pieces(session: Session, decoder: Decoder, tokens: Tokens) -> Iterator[Floats]:
    """The logits [V] behind each token, computed for so many at once as fit into ``LOGITS_BYTES``."""
    size = max(LEAST_PIECE, LOGITS_BYTES // (4 * session.manifest.model.vocab_size))
    for start in range(0, tokens.size, size):
        piece = tokens[start : start + size]
        yield from decoder.extend(0, piece, piece.size)


def _whole(session: Session, decoder: Decoder, tokens: Tokens, count: int) -> Iterator[Floats]:
    """As ``_pieces`` for the last ``count`` tokens of a text that must be read in one piece.

    Raises:
        PromptError: there is not enough memory for the logits.
    """
    needed = 4 * count * session.manifest.model.vocab_size
    free = available_memory()
    if free is not None and 2 * needed > free:  # ONNX Runtime's and ours
        raise PromptError(
            f"the logits of {count:,} tokens need {2 * needed / 1e6:,.0f} MB at once, since this model's rotary "
            f"frequencies depend on the text's length, and {free / 1e6:,.0f} MB of memory are free; score less text"
        )
    decoder.rollback(0, 0)
    yield from decoder.extend(0, tokens, count)


def windows(size: int, first: int, window: int, stride: int) -> Iterator[tuple[int, int, int]]:
    """(begin, first, end): tokens from ``first`` to ``end`` are scored by what stands from ``begin`` on.

    Every token is scored once. The first window scores all it holds, each later one ``stride`` tokens with the
    ``window`` tokens before the last of them in view, so that a token sees at least ``window - stride + 1``.
    """
    end = min(size, max(window + 1, first + 1))
    while True:
        yield max(0, end - 1 - window), first, end
        if end == size:
            return
        first, end = end, min(size, end + stride)


def pair(context: str, text: str, tokenizer: Tokenizer) -> Task:
    """Context and continuation tokenized as the one text that they are.

    A token that the border runs through belongs to what is scored.
    """
    whole, before = tokenizer.encode(context + text), tokenizer.encode(context)
    common = next((i for i, (a, b) in enumerate(zip(whole, before, strict=False)) if a != b), len(before))
    return Task(np.asarray(whole, dtype=np.int64), min(common, len(before)))


def _task(session: Session, tokenizer: Tokenizer | None, text: Prompt, context: Prompt | None, name: str) -> Task:
    facts = session.manifest.model
    tokens = token_ids(text, tokenizer, facts, name)
    if context is None:
        if tokens.size == 1:
            raise PromptError(f"{name} is a single token, and nothing stands before it; give a context")
        return Task(tokens, 1)
    before = token_ids(context, tokenizer, facts, f"the context of {name}")
    if isinstance(text, str) and isinstance(context, str) and tokenizer is not None:
        task = pair(context, text, tokenizer)
        if 0 < task.first < task.tokens.size:
            return task
    return Task(np.concatenate([before, tokens]), before.size)


def _contexts(context: Prompt | Prompts | None, count: int, listed: bool) -> list[Prompt | None]:
    if context is None:
        return [None] * count
    found, several = as_list(context)
    if not several:
        return [found[0]] * count
    if not listed or len(found) != count:
        texts = f"{count} texts" if listed else "one text"
        raise UsageError(f"there are {len(found)} contexts for {texts}; give one for each, or one for all")
    return list(found)


def _score(tokenizer: Tokenizer | None, task: Task, logprobs: NDArray[np.float64], greedy: bool) -> Score:
    ids = task.tokens.tolist()
    scored = tuple(ids[task.first :])
    texts = tuple(token_text(tokenizer, token) for token in scored)
    return Score(tuple(ids[: task.first]), scored, texts, tuple(logprobs.tolist()), greedy)
