"""Question answering: best spans against brute force, windows, and offsets into the context."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from intaglio.errors import PromptError, UsageError
from intaglio.runtime import QuestionAnswerer, load
from intaglio.runtime.tasks.answer import ContextWindow, best_spans, split, word_ranges
from intaglio.runtime.tasks.entities import without_space
from intaglio.tests.runtime import fakes
from tokenizers import processors
from transformers import AutoTokenizer, BatchEncoding

TABLE = np.random.default_rng(3).normal(scale=2.0, size=(fakes.VOCAB, 2))
QUESTION = "Where is the stone?"
CONTEXT = "The engraver cuts a design into the stone, and the seal then presses 你好 the same impression every time."


@pytest.fixture
def answerer(tmp_path: Path) -> QuestionAnswerer:
    model = load(fakes.head(tmp_path / "qa", "question-answering", TABLE), task="question-answering")
    assert isinstance(model, QuestionAnswerer)
    return model


def brute_force(model: QuestionAnswerer, context: str, longest: int) -> dict[tuple[int, int], float]:
    """Return the best sum of logits of every span; the logits of the fake model do not depend on windows."""
    encoding = model.tokenizer.backend.encode(context)
    starts, ends = TABLE.astype(np.float32)[encoding.ids].T
    best: dict[tuple[int, int], float] = {}
    for first in range(len(encoding)):
        for last in range(first, min(first + longest, len(encoding))):
            start, end = encoding.offsets[first][0], encoding.offsets[last][1]
            while start < end and context[start].isspace():
                start += 1
            while start < end and context[end - 1].isspace():
                end -= 1
            if start < end:
                key = (start, end)
                best[key] = max(best.get(key, -np.inf), float(starts[first]) + float(ends[last]))
    return best


@pytest.mark.parametrize("longest", [1, 4, 15, 500])
@pytest.mark.parametrize(("window", "stride"), [(384, 128), (40, 20), (30, 15)])
def test_the_best_spans_are_those_of_brute_force(
    answerer: QuestionAnswerer, longest: int, window: int, stride: int
) -> None:
    """Every span of up to ``stride`` + 1 tokens is inside some window, so windows lose none."""
    longest = longest if window == 384 else min(longest, stride)
    answers = answerer(QUESTION, CONTEXT, top_k=10, max_answer_length=longest, window=window, stride=stride)
    every = brute_force(answerer, CONTEXT, longest)
    best = sorted(every.values(), reverse=True)[:10]
    assert len({(answer.start, answer.end) for answer in answers}) == 10
    np.testing.assert_allclose([every[answer.start, answer.end] for answer in answers], best, atol=1e-5)
    assert all(answer.text == CONTEXT[answer.start : answer.end] for answer in answers)
    logs = np.log([answer.score for answer in answers])
    np.testing.assert_allclose(logs - logs[0], np.array(best) - best[0], atol=1e-5)


def test_the_score_is_a_probability_over_the_contexts_tokens(answerer: QuestionAnswerer) -> None:
    context = "a stone"
    ids = answerer.tokenizer.encode(context)
    start, end = (np.exp(TABLE[ids, column]) / np.exp(TABLE[ids, column]).sum() for column in (0, 1))
    answers = answerer(QUESTION, context, top_k=1000, max_answer_length=1000)
    pairs = [(start[i] * end[j]) for i in range(len(ids)) for j in range(i, len(ids))]
    assert answers[0].score == pytest.approx(max(pairs), rel=1e-5)
    assert [answer.score for answer in answers] == sorted((answer.score for answer in answers), reverse=True)
    assert sum(answer.score for answer in answers) <= 1


def test_windows_are_cut_as_transformers_cuts_them(answerer: QuestionAnswerer) -> None:
    theirs = AutoTokenizer.from_pretrained(answerer.session.folder)
    encoded = theirs(
        QUESTION,
        CONTEXT,
        truncation="only_second",
        max_length=30,
        stride=11,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    ours = split(answerer.tokenizer, QUESTION, CONTEXT, 30, 11)
    assert len(ours) > 3
    assert [window.ids for window in ours] == encoded["input_ids"]
    assert [window.offsets for window in ours] == encoded["offset_mapping"]
    assert [window.texts for window in ours] == [encoded.sequence_ids(i) for i in range(len(ours))]


def test_an_answer_is_never_in_the_question(tmp_path: Path) -> None:
    table = np.zeros((fakes.VOCAB, 2))
    model = load(fakes.head(tmp_path / "qa", "question-answering", table), task="question-answering")
    ids = model.tokenizer.encode("Q")
    table[ids] = 50.0
    loud = load(fakes.head(tmp_path / "loud", "question-answering", table), task="question-answering")
    for answer in loud("Q", "ab", top_k=10):
        assert answer.score == pytest.approx(0.25)


def test_the_window_with_the_higher_score_wins() -> None:
    """With a softmax for each window, the second window's only token would have had probability 1."""
    sure = ContextWindow(np.array([9.0, 0.0]), np.array([0.0, 9.0]), [(0, 1), (1, 2)])
    vague = ContextWindow(np.array([1.0]), np.array([1.0]), [(3, 4)])
    answers = best_spans([vague, sure], "ab c", top_k=2, max_answer_length=5)
    assert [answer.text for answer in answers] == ["ab", "a"]
    assert answers[0].score == pytest.approx(np.exp(18) / (np.exp(9) + 1 + np.e) ** 2)


def test_a_span_in_two_windows_counts_once_with_its_better_score() -> None:
    first = ContextWindow(np.array([1.0]), np.array([1.0]), [(0, 1)])
    second = ContextWindow(np.array([3.0]), np.array([3.0]), [(0, 1)])
    (answer,) = best_spans([first, second], "a", top_k=5, max_answer_length=5)
    assert answer.score == pytest.approx((np.exp(3) / (np.exp(3) + np.e)) ** 2)


def test_white_space_is_not_an_answer() -> None:
    window = ContextWindow(np.array([9.0, 0.0]), np.array([9.0, 0.0]), [(0, 1), (1, 2)])
    answers = best_spans([window], " a", top_k=5, max_answer_length=1)
    assert [(answer.text, answer.start, answer.end) for answer in answers] == [("a", 1, 2)]


def test_questions_and_contexts_that_cannot_be_taken(answerer: QuestionAnswerer) -> None:
    with pytest.raises(PromptError, match="the question is empty: it has no tokens"):
        answerer("", CONTEXT)
    with pytest.raises(PromptError, match="the context is empty: it has no tokens"):
        answerer(QUESTION, "")
    with pytest.raises(PromptError) as error:
        answerer("x" * 30, CONTEXT, window=40, stride=10)
    assert "the question has 30 tokens and leaves 10 of a window of 40 to the context" in str(error.value)
    assert "more than the stride of 10; shorten the question, or change window or stride" in str(error.value)
    with pytest.raises(PromptError, match="leaves 0 of a window of 40"):
        answerer("x" * 50, "ab", window=40)
    for option in ("top_k", "max_answer_length", "batch_size"):
        none: dict[str, Any] = {option: 0}
        with pytest.raises(UsageError, match=f"{option} must be at least 1, not 0"):
            answerer(QUESTION, CONTEXT, **none)
    with pytest.raises(UsageError, match="stride must be at least 0, not -1"):
        answerer(QUESTION, CONTEXT, stride=-1)


@pytest.mark.parametrize("trim", [False, True])
def test_aligned_answers_are_whole_words(answerer: QuestionAnswerer, trim: bool) -> None:
    """As transformers' BatchEncoding gives the characters of the word of a token."""
    backend = answerer.tokenizer.backend
    backend.post_processor = processors.ByteLevel(trim_offsets=trim)
    (sequence,) = split(answerer.tokenizer, QUESTION, CONTEXT, 384, 128)
    theirs = BatchEncoding(encoding=backend.encode(CONTEXT))
    positions = [position for position, part in enumerate(sequence.texts) if part == 1]
    words = word_ranges([sequence.words[p] for p in positions], [sequence.offsets[p] for p in positions])
    spans = [theirs.word_to_chars(theirs.token_to_word(token)) for token in range(len(positions))]
    assert words == [(span.start, span.end) for span in spans]
    plain = answerer(QUESTION, CONTEXT, top_k=30, max_answer_length=3)
    aligned = answerer(QUESTION, CONTEXT, top_k=30, max_answer_length=3, align_to_words=True)
    edges = {without_space(CONTEXT, *word) for word in words}
    assert any((one.start, one.end) not in {(a.start, a.end) for a in aligned} for one in plain)
    assert {one.start for one in aligned} <= {start for start, _ in edges}
    assert {one.end for one in aligned} <= {end for _, end in edges}
    assert aligned[0].score == pytest.approx(plain[0].score)
    assert aligned[0].start <= plain[0].start < plain[0].end <= aligned[0].end


def test_a_template_that_trims_offsets_trims_them_once(answerer: QuestionAnswerer) -> None:
    answerer.tokenizer.backend.post_processor = processors.ByteLevel(trim_offsets=True)
    theirs = answerer.tokenizer.backend.encode(QUESTION, CONTEXT)
    (sequence,) = split(answerer.tokenizer, QUESTION, CONTEXT, 384, 128)
    assert sequence.offsets == theirs.offsets
    assert sequence.ids == theirs.ids
