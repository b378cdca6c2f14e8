"""Scores against transformers' log-probabilities: Qwen2, EXAONE 4.0, both targets, chunks, windows, shared contexts."""

import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from intaglio.errors import PromptError, UsageError
from intaglio.exporter import export
from intaglio.runtime import TextGenerator
from intaglio.runtime.decoding.in_place import InPlaceDecoder
from intaglio.runtime.generation.score import score_windows
from intaglio.tests import tiny
from intaglio.tests.runtime import fakes
from intaglio.tests.runtime.fakes import logprobs_of, text_generator, tokenizer_of

# Either family and either target once in the quick run; the other pairs in the whole one.
PAIRS = [
    ("exaone4", "ort"),
    ("qwen2", "standard"),
    pytest.param("exaone4", "standard", marks=pytest.mark.slow),
    pytest.param("qwen2", "ort", marks=pytest.mark.slow),
]
TEXT = "The engraver cuts a design into the stone, and the seal presses it. 你好 😀!"
# Longer than the sliding window of 6, with a beginning of its own.
TOKENS = [17, 5, 200, 9, 31, 31, 40, 8, 2, 90, 120, 7, 13, 250, 66, 3, 18, 77, 77, 101, 33, 4, 60, 61]


pytestmark = pytest.mark.usefixtures("transformers_quietly")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("score")


def make(place: Path, family: str, target: str, name: str = "plain", **options: Any) -> tuple[Path, TextGenerator]:
    """Return a checkpoint and its loaded artifact, which are made once per module."""
    source = place / f"{family}-{name}"
    if not source.exists():
        tiny.write(source, tiny.config(family, **options), tokenizer=True)
    artifact = place / f"{source.name}-{target}"
    if not artifact.exists():
        export(source, artifact, target=target)  # type: ignore[arg-type]
    model = text_generator(artifact, threads=1)
    return source, model


@cache
def theirs(source: Path) -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32).eval()  # type: ignore[no-untyped-call]


def their_logprobs(source: Path, tokens: Sequence[int], first: int = 1) -> list[float]:
    """Return transformers' log-probabilities of the tokens from ``first`` on, computed in one pass."""
    with torch.no_grad():
        table = theirs(source)(torch.tensor([list(tokens)])).logits[0].double().log_softmax(-1)
    return [table[place - 1, tokens[place]].item() for place in range(first, len(tokens))]


@pytest.mark.parametrize(("family", "target"), PAIRS)
def test_scores_equal_transformers(place: Path, family: str, target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    source, lm = make(place, family, target)
    for tokens in (TOKENS, tokenizer_of(lm).encode(TEXT)):
        expected = their_logprobs(source, tokens)
        score = lm.score(tokens)
        np.testing.assert_allclose(score.logprobs, expected, atol=1e-4)
        assert (score.context_token_ids, score.token_ids) == ((tokens[0],), tuple(tokens[1:]))
        assert score.total == pytest.approx(sum(expected), abs=1e-3)
        assert score.perplexity == pytest.approx(math.exp(-sum(expected) / len(expected)), rel=1e-4)
    assert lm.score(TEXT) == lm.score(tokenizer_of(lm).encode(TEXT))
    monkeypatch.setattr("intaglio.runtime.generation.score.LOGITS_BYTES", 0)
    monkeypatch.setattr("intaglio.runtime.generation.score.MIN_CHUNK", 5)
    monkeypatch.setattr("intaglio.runtime.decoding.prefill.PREFILL_CHUNK", 4)
    np.testing.assert_allclose(lm.score(TOKENS).logprobs, their_logprobs(source, TOKENS), atol=1e-4)


@pytest.mark.parametrize(("family", "target"), PAIRS)
def test_continuations_of_a_context(place: Path, family: str, target: str) -> None:
    """Several continuations share a context, one longer than the sliding window, with another context between."""
    source, lm = make(place, family, target)
    context, other = TOKENS[:15], TOKENS[3:9]
    texts = [[7], TOKENS[15:], [50, 51], TOKENS, [7, 8]]
    contexts = [context, context, other, context, context]
    scores = lm.score(texts, context=contexts)
    for text, before, score in zip(texts, contexts, scores, strict=True):
        np.testing.assert_allclose(score.logprobs, their_logprobs(source, before + text, len(before)), atol=1e-4)
        assert score.context_token_ids == tuple(before)
        assert score == lm.score(text, context=before)
    assert lm.score(texts, context=context)[:2] == scores[:2]


@pytest.mark.parametrize(("family", "target"), PAIRS)
def test_greedy_is_true_for_the_tokens_that_generation_gives(place: Path, family: str, target: str) -> None:
    _, lm = make(place, family, target)
    given = lm.generate(TOKENS, max_new_tokens=6, eos_token_id=[], repetition_penalty=1.0, logprobs=0)
    score = lm.score(given.token_ids, context=TOKENS)
    assert score.is_greedy
    np.testing.assert_allclose(score.logprobs, [token.logprob for token in logprobs_of(given)], atol=1e-4)
    listed = lm.score(given.token_ids, context=TOKENS, logprobs=3)
    again = lm.generate(TOKENS, max_new_tokens=6, eos_token_id=[], repetition_penalty=1.0, logprobs=3)
    assert listed.top is not None
    for top, token in zip(listed.top, logprobs_of(again), strict=True):
        assert [one.token_id for one in top] == [one.token_id for one in token.top]
        np.testing.assert_allclose([one.logprob for one in top], [one.logprob for one in token.top], atol=1e-4)
        assert top[0].logprob == listed.logprobs[listed.top.index(top)]
    assert not lm.score([*given.token_ids[:3], given.token_ids[3] ^ 1], context=TOKENS).is_greedy
    assert not lm.score([given.token_ids[0] ^ 1, *given.token_ids[1:]], context=TOKENS).is_greedy


@pytest.mark.parametrize("target", ["ort", "standard"])
@pytest.mark.parametrize(("window", "stride"), [(10, 10), (10, 3), (10, 1), (30, 5), (9, 2)])
def test_windows_score_each_token_after_the_tokens_of_its_window(
    place: Path, target: str, window: int, stride: int
) -> None:
    source, lm = make(place, "qwen2", target)
    score = lm.score(TOKENS, window=window, stride=stride)
    expected: list[float] = []
    while len(expected) < len(TOKENS) - 1:
        done = 1 + len(expected)
        end = min(len(TOKENS), window + 1 if done == 1 else done + stride)
        begin = max(0, end - 1 - window)
        expected += their_logprobs(source, TOKENS[begin:end], done - begin)
    np.testing.assert_allclose(score.logprobs, expected, atol=1e-4)


def test_the_logits_of_a_long_text_are_never_all_at_once(lm: TextGenerator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Logits of the context are computed for its last position only."""
    asked = []
    extend = InPlaceDecoder.extend

    def recorded(
        decoder: InPlaceDecoder, row: int, tokens: np.ndarray, keep: int = 1, part: bool = False
    ) -> np.ndarray:
        asked.append((tokens.size, keep))
        return extend(decoder, row, tokens, keep, part)

    monkeypatch.setattr(InPlaceDecoder, "extend", recorded)
    monkeypatch.setattr("intaglio.runtime.generation.score.MIN_CHUNK", 1)
    monkeypatch.setattr("intaglio.runtime.generation.score.LOGITS_BYTES", 4 * 288 * 20)
    lm.score([5] * 45, context=[6] * 10)
    assert asked == [(9, 1), (20, 20), (20, 20), (5, 5)]


def test_windows_score_every_token_once() -> None:
    for size in range(2, 30):
        for first in range(1, size):
            for window in range(1, 12):
                for stride in range(1, window + 1):
                    spans = list(score_windows(size, first, window, stride))
                    assert [one for _, start, end in spans for one in range(start, end)] == list(range(first, size))
                    assert all(0 <= begin < start and end - 1 - begin <= window for begin, start, end in spans)
                    assert all(start - begin >= window - stride + 1 for begin, start, _ in spans[1:])


@pytest.mark.parametrize("target", ["ort", "standard"])
def test_frequencies_that_depend_on_the_length_read_a_text_whole(
    place: Path, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rope = {"rope_type": "dynamic", "factor": 4.0, "original_max_position_embeddings": 16}
    source, lm = make(place, "qwen2", target, "dynamic", rope=rope)
    monkeypatch.setattr("intaglio.runtime.generation.score.LOGITS_BYTES", 0)
    scores = lm.score([TOKENS[10:], TOKENS[10:12]], context=TOKENS[:10])
    # The last token is not read, so the frequencies are those of a text of one token less.
    with torch.no_grad():
        table = theirs(source)(torch.tensor([TOKENS[:-1]])).logits[0].double().log_softmax(-1)
    expected = [table[place - 1, TOKENS[place]].item() for place in range(10, len(TOKENS))]
    np.testing.assert_allclose(scores[0].logprobs, expected, atol=1e-4)
    np.testing.assert_allclose(scores[1].logprobs, their_logprobs(source, TOKENS[:12], 10), atol=1e-4)
    monkeypatch.setattr("intaglio.runtime.generation.score.available_memory", lambda: 20_000)
    with pytest.raises(PromptError) as error:
        lm.score(TOKENS)
    assert str(error.value) == (
        "the logits of 23 tokens need 0 MB at once, since this model's rotary frequencies depend on the text's "
        "length, and 0 MB of memory are free; score less text"
    )


@pytest.fixture(scope="module")
def lm(place: Path) -> TextGenerator:
    return text_generator(fakes.language_model(place / "fake", context_length=64))


def test_context_and_text_are_tokenized_as_one(lm: TextGenerator) -> None:
    whole, before = tokenizer_of(lm).encode("The stone"), tokenizer_of(lm).encode("The ")
    assert whole[: len(before)] != before, "the space must go with the word for this test to mean something"
    score = lm.score("stone", context="The ")
    assert [*score.context_token_ids, *score.token_ids] == whole
    assert "".join(score.tokens) == " stone"
    separate = lm.score(tokenizer_of(lm).encode("stone"), context="The ")
    assert list(separate.context_token_ids) == before


def test_a_list_gives_a_list_and_the_whole_context_can_be_scored(lm: TextGenerator) -> None:
    one = lm.score("The stone")
    assert lm.score(["The stone"]) == lm.score(("The stone",)) == [one]
    assert len(lm.score([5] * 65).logprobs) == 64
    assert lm.score([5], context=[6]).context_token_ids == (6,)
    assert len(lm.score([5] * 70, stride=64).logprobs) == 69


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("", {}, "the text is empty: it has no tokens; give at least one"),
        ([5], {}, "the text is a single token without a token before it; give a context"),
        (["ab", ""], {}, "text 1 is empty: it has no tokens"),
        ([5, 288], {}, "the text: token id 288 is out of range, the model's ids are 0 to 287"),
        ([5], {"context": [-1]}, "the context of the text: token id -1 is out of range"),
        ("ab", {"context": ""}, "the context of the text is empty"),
        ([5] * 66, {}, "the text has 66 tokens, and the model reads 64 at once; shorten it, or give a stride"),
        ([5] * 10, {"window": 8}, "the text has 10 tokens, and the model reads 8 at once"),
    ],
)
def test_texts_that_cannot_be_scored(lm: TextGenerator, text: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(PromptError) as error:
        lm.score(text, **options)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("ab", {"window": 0}, "window must be between 1 and the model's context of 64, not 0"),
        ("ab", {"window": 65}, "window must be between 1 and the model's context of 64, not 65"),
        ("ab", {"stride": 0}, "stride must be between 1 and the window of 64, not 0"),
        ("ab", {"window": 8, "stride": 9}, "stride must be between 1 and the window of 8, not 9"),
        ("ab", {"context": ["a", "b"]}, "there are 2 contexts for one text; give one for each, or one for all"),
        (["ab", "c"], {"context": ["a"]}, "there are 1 contexts for 2 texts; give one for each, or one for all"),
    ],
)
def test_settings_of_a_score_out_of_their_range(
    lm: TextGenerator, text: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError) as error:
        lm.score(text, **options)
    assert message in str(error.value)


def test_without_a_tokenizer_token_ids_still_have_scores(place: Path, lm: TextGenerator) -> None:
    bare = text_generator(fakes.language_model(place / "bare", tokenizer=False, context_length=64))
    assert bare.score([5, 6, 7]).logprobs == lm.score([5, 6, 7]).logprobs
    assert bare.score([5, 6, 7]).tokens == ("", "")
    with pytest.raises(PromptError, match=r"the text is text, and this artifact has no tokenizer\.json"):
        bare.score("ab")
