"""Extractive question answering: the spans of a context that answer a question.

Question and context form one sequence, built by the tokenizer's own template. A context that does not fit is read in
overlapping windows, as in BERT's SQuAD evaluation (Devlin et al. 2018): the score of a span is the sum of its start and
end logits in any window, and probabilities are normalized over the tokens of all windows.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...contract import OUTPUTS
from ...errors import PromptError, UsageError
from ...known_options import refuses_unknown_options
from ..numerics import log_sum_exp
from ..text.prompts import check_range
from ..text.sequences import TokenSequence, join
from ..text.tokenizer import Tokenizer
from .base import TaskModel
from .entities import without_space
from .padded import run_batches

Scores = NDArray[np.float64]


@dataclass(frozen=True)
class Answer:
    """The characters ``text`` from ``start`` to ``end`` of the context, and their probability."""

    text: str
    score: float
    start: int
    end: int


@dataclass(frozen=True)
class ContextWindow:
    """The context tokens of one pass: their start and end logits [S], and their character ranges.

    ``words`` are the ranges of the words that the tokens are parts of, as far as the window has them.
    """

    start_logits: Scores
    end_logits: Scores
    offsets: list[tuple[int, int]]
    words: list[tuple[int, int]] | None = None


class QuestionAnswerer(TaskModel):
    """A loaded question-answering artifact."""

    @refuses_unknown_options
    def __call__(
        self,
        question: str,
        context: str,
        *,
        top_k: int = 1,
        max_answer_length: int = 15,
        window: int = 384,
        stride: int = 128,
        align_to_words: bool = False,
        batch_size: int = 8,
    ) -> list[Answer]:
        """Return the ``top_k`` most likely answers in descending order; fewer where the context has fewer spans.

        Args:
            max_answer_length: the most tokens of an answer.
            window: the most tokens of question and context together in one pass.
            stride: tokens of the context that adjacent windows share.
            align_to_words: extend answers to whole words, as the pre-tokenizer cuts them.

        Raises:
            PromptError: an empty question or context, or a question that leaves no room in the window.
            UsageError: top_k, max_answer_length or batch_size below 1, or a negative stride.
        """
        for name, value, least in (
            ("top_k", top_k, 1),
            ("max_answer_length", max_answer_length, 1),
            ("stride", stride, 0),
        ):
            if value < least:
                raise UsageError(f"{name} must be at least {least}, not {value}")
        sequences = self.encode(question, context, window=window, stride=stride)
        ids = [sequence.ids for sequence in sequences]
        results = dict(run_batches(self.session, ids, OUTPUTS["question-answering"], batch_size))
        windows = []
        for index, sequence in enumerate(sequences):
            positions = [position for position, part in enumerate(sequence.texts) if part == 1]
            starts, ends = (logits[positions].astype(np.float64) for logits in results[index])
            offsets = [sequence.offsets[position] for position in positions]
            words = word_ranges([sequence.words[position] for position in positions], offsets)
            windows.append(ContextWindow(starts, ends, offsets, words if align_to_words else None))
        return best_spans(windows, context, top_k, max_answer_length)

    def encode(self, question: str, context: str, *, window: int = 384, stride: int = 128) -> list[TokenSequence]:
        """Return the tokens of the windows that a call reads; arguments and errors as there."""
        size = min(window, self.manifest.model.context_length)
        sequences = split(self.tokenizer, question, context, size, stride)
        for sequence in sequences:
            check_range(np.asarray(sequence.ids, dtype=np.int64), self.manifest.model, "question and context")
        return sequences


def split(tokenizer: Tokenizer, question: str, context: str, size: int, stride: int) -> list[TokenSequence]:
    """Encode question and context as sequences of at most ``size`` tokens, whose contexts overlap by ``stride``.

    Raises:
        PromptError: a question or context without tokens, or a question that leaves ``stride`` tokens or fewer.
    """
    backend = tokenizer.backend
    tokenizer.check_length(question, size, "the question")
    question_encoding = tokenizer.encode_with_offsets(question, add_special_tokens=False)
    context_encoding = tokenizer.encode_with_offsets(context, add_special_tokens=False)
    for name, encoding in (("question", question_encoding), ("context", context_encoding)):
        if not encoding.ids:
            raise PromptError(f"the {name} is empty: it has no tokens; give at least one word")
    room = size - len(question_encoding) - backend.num_special_tokens_to_add(True)
    if room < 1 or (len(context_encoding) > room and room <= stride):
        raise PromptError(
            f"the question has {len(question_encoding)} tokens and leaves {max(room, 0)} of a window of {size} to the "
            f"context, which must be more than the stride of {stride}; shorten the question, or change window or stride"
        )
    if len(context_encoding) > room:
        context_encoding.truncate(room, stride=stride)
    parts = (context_encoding, *context_encoding.overflowing)
    return [join(backend, question_encoding, part) for part in parts]


def word_ranges(words: list[int | None], offsets: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return for each token the range of characters of its word, from the word's first token to its last."""
    members: dict[int, list[tuple[int, int]]] = {}
    for word, token_range in zip(words, offsets, strict=True):
        if word is not None:
            members.setdefault(word, []).append(token_range)
    whole = {word: (ranges[0][0], ranges[-1][1]) for word, ranges in members.items()}
    return [offsets[index] if word is None else whole[word] for index, word in enumerate(words)]


def best_spans(windows: list[ContextWindow], context: str, top_k: int, max_answer_length: int) -> list[Answer]:
    """Return the most likely spans of all windows; a span in several windows counts once, with its best score."""
    start_total = log_sum_exp(np.concatenate([window.start_logits for window in windows]))
    end_total = log_sum_exp(np.concatenate([window.end_logits for window in windows]))
    sums, spans = zip(*(_spans(window, max_answer_length) for window in windows), strict=True)
    scores = np.concatenate(sums) - start_total - end_total
    owners = np.repeat(np.arange(len(windows)), [len(part) for part in sums])
    tokens = np.concatenate(spans)
    found: dict[tuple[int, int], Answer] = {}
    for index in np.argsort(-scores, kind="stable"):
        window = windows[owners[index]]
        offsets = window.words or window.offsets
        first, last = tokens[index]
        start, end = without_space(context, offsets[first][0], offsets[last][1])
        text = context[start:end]
        if text.strip() and (start, end) not in found:
            found[start, end] = Answer(text, float(np.exp(scores[index])), start, end)
            if len(found) == top_k:
                break
    return list(found.values())


def _spans(window: ContextWindow, longest: int) -> tuple[Scores, NDArray[np.int64]]:
    """Return every span of up to ``longest`` tokens: start plus end logit [N], and first and last token [N, 2]."""
    count = len(window.offsets)
    sums, spans = [], []
    for extra in range(min(longest, count)):
        first = np.arange(count - extra)
        sums.append(window.start_logits[: count - extra] + window.end_logits[extra:])
        spans.append(np.stack([first, first + extra], axis=1))
    return np.concatenate(sums), np.concatenate(spans)
