"""Log-probabilities of generated tokens and of their alternatives."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from intaglio.errors import ArtifactError, UsageError
from intaglio.runtime import Candidate, TextGenerator, TokenLogprob
from intaglio.runtime.sequence.logprobs import likeliest, log_normalizer, token_logprob
from intaglio.tests.runtime import fakes
from intaglio.tests.runtime.fakes import logprobs_of, text_generator, token_id, tokenizer_of

PROMPTS = [[5, 6, 7], [9] * 40, [20, 30, 40]]


@pytest.fixture(scope="module")
def lm(tmp_path_factory: pytest.TempPathFactory) -> TextGenerator:
    return text_generator(fakes.language_model(tmp_path_factory.mktemp("lm") / "lm"))


@pytest.mark.parametrize("spread", [0.01, 1.0, 30.0])
def test_the_normaliser_is_that_of_float64(spread: float) -> None:
    logits = np.random.default_rng(1).normal(scale=spread, size=150_000).astype(np.float32) + np.float32(40)
    wide = logits.astype(np.float64)
    exact = wide.max() + math.log(math.fsum(np.exp(wide - wide.max())))
    assert log_normalizer(logits) == pytest.approx(exact, abs=2e-6)


def test_nan_logits_are_refused() -> None:
    with pytest.raises(ArtifactError, match="the model's logits are not finite numbers"):
        log_normalizer(np.array([1, np.nan], dtype=np.float32))


def test_the_likeliest_are_those_of_a_full_sort() -> None:
    random = np.random.default_rng(2)
    for size in (1, 2, 7, 64, 500, 5_000):
        for _ in range(20):
            logits = random.integers(0, size, size).astype(np.float32)  # with ties
            for count in {0, 1, min(3, size), size // 2, size - 1, size}:
                assert likeliest(logits, count) == np.argsort(-logits, kind="stable")[:count].tolist()


def test_a_tokens_entry(lm: TextGenerator) -> None:
    logits = np.full(288, -30, dtype=np.float32)
    stone, end = token_id(tokenizer_of(lm).backend, "e"), 2
    logits[[stone, end, 7]] = np.log([0.5, 0.3, 0.2], dtype=np.float32)
    found = token_logprob(logits, end, 2, lm.tokenizer)
    assert (found.token_id, found.text) == (2, "<|im_end|>")
    assert found.logprob == pytest.approx(math.log(0.3), abs=1e-6)
    assert [(one.token_id, one.text) for one in found.top] == [(stone, "e"), (2, "<|im_end|>")]
    assert [one.logprob for one in found.top] == pytest.approx([math.log(0.5), math.log(0.3)], abs=1e-6)
    found = token_logprob(logits, 7, 0, None)
    assert found == TokenLogprob(7, "", found.logprob, ())
    assert found.logprob == pytest.approx(math.log(0.2), abs=1e-6)


def test_every_generated_token_has_an_entry(lm: TextGenerator) -> None:
    """The end token and the tokens of a stop string have them too, though their text is cut off."""
    given = lm.generate(PROMPTS, max_new_tokens=12, logprobs=3)
    assert given == [lm.generate(prompt, max_new_tokens=12, logprobs=3) for prompt in PROMPTS]
    for result in given:
        assert [entry.token_id for entry in logprobs_of(result)] == list(result.token_ids)
        for entry in logprobs_of(result):
            assert entry.top[0] == Candidate(entry.token_id, entry.text, entry.logprob)  # greedy takes the best
            assert [one.logprob for one in entry.top] == sorted((one.logprob for one in entry.top), reverse=True)
        score = lm.score(result.token_ids, context=result.prompt_token_ids)
        np.testing.assert_allclose([entry.logprob for entry in logprobs_of(result)], score.logprobs, atol=1e-4)
    end = given[0].token_ids[3]
    ended = lm.generate(PROMPTS[0], max_new_tokens=12, logprobs=0, eos_token_id=end)
    assert ended.finish_reason == "eos"
    assert [entry.token_id for entry in logprobs_of(ended)] == list(ended.token_ids)
    assert lm.generate(PROMPTS[0], max_new_tokens=12).logprobs is None


def test_log_probabilities_do_not_depend_on_the_sampling_settings(lm: TextGenerator) -> None:
    plain = logprobs_of(lm.generate([5, 6, 7], max_new_tokens=1, logprobs=288))[0]
    assert math.fsum(math.exp(one.logprob) for one in plain.top) == pytest.approx(1, abs=1e-6)
    kinds: tuple[dict[str, Any], ...] = (
        {"temperature": 3.0, "top_k": 5, "seed": 1},
        {"repetition_penalty": 5.0},
        {"regex": "[0-9]"},
        {"temperature": 0.1, "top_p": 0.5, "seed": 2},
    )
    for settings in kinds:
        other = logprobs_of(lm.generate([5, 6, 7], max_new_tokens=1, logprobs=288, **settings))[0]
        assert other.top == plain.top
        assert other.logprob == next(one.logprob for one in plain.top if one.token_id == other.token_id)


def test_a_streams_generation_has_them_too(lm: TextGenerator) -> None:
    stream = lm.stream([5, 6, 7], max_new_tokens=5, logprobs=2)
    list(stream)
    assert stream.generation == lm.generate([5, 6, 7], max_new_tokens=5, logprobs=2)


@pytest.mark.parametrize("count", [-1, 289])
def test_a_count_out_of_its_range(lm: TextGenerator, count: int) -> None:
    with pytest.raises(UsageError, match=f"logprobs must be between 0 and the vocabulary's 288, not {count}"):
        lm.generate([5], logprobs=count)


def test_without_a_tokenizer_there_is_no_text(tmp_path: Path) -> None:
    bare = text_generator(fakes.language_model(tmp_path / "bare", tokenizer=False))
    entry = logprobs_of(bare.generate([5], max_new_tokens=1, logprobs=1))[0]
    assert entry.text == entry.top[0].text == ""
    assert entry.token_id == entry.top[0].token_id


@pytest.mark.parametrize("settings", [{}, {"top_k": 12, "top_p": 0.9}, {"regex": "[a-z0-9]{1,2}"}], ids=str)
def test_sampled_tokens_follow_the_exact_probabilities(tmp_path: Path, settings: dict[str, Any]) -> None:
    """Pearson's chi-square over the tokens expected five times or more, the others together as one.

    Its mean is the number n of cells less one and its variance twice that; the bound is six deviations above.
    """
    lm = text_generator(fakes.language_model(tmp_path / "lm", sharpness=1.0))
    draws = 3_000
    table = {
        one.token_id: one.logprob for one in logprobs_of(lm.generate([5, 6], max_new_tokens=1, logprobs=288))[0].top
    }
    logits = np.array([table[token] for token in range(288)])
    allowed = np.ones(288, dtype=bool)
    if "regex" in settings:
        texts = [tokenizer_of(lm).decode([token]) for token in range(288)]
        allowed = np.array(
            [0 < len(text) <= 2 and all(c in "abcdefghijklmnopqrstuvwxyz0123456789" for c in text) for text in texts]
        )
    weights = np.where(allowed, np.exp(logits / 1.3), 0)
    if "top_k" in settings:
        weights[np.argsort(-weights)[12:]] = 0
        order = np.argsort(-weights)
        before = np.cumsum(weights[order]) / weights.sum() - weights[order] / weights.sum()
        weights[order[before >= 0.9]] = 0
    expected = weights / weights.sum() * draws
    tokens = [
        one.token_ids[0]
        for one in lm.generate([[5, 6]] * draws, max_new_tokens=1, temperature=1.3, seed=5, batch_size=64, **settings)
    ]
    counts = np.bincount(tokens, minlength=288)
    assert not counts[expected == 0].any()
    usual = expected >= 5
    cells = [*zip(counts[usual], expected[usual], strict=True), (counts[~usual].sum(), expected[~usual].sum())]
    cells = [(found, wanted) for found, wanted in cells if wanted > 0]
    chi_square = sum((found - wanted) ** 2 / wanted for found, wanted in cells)
    assert len(cells) > 5
    assert chi_square < len(cells) - 1 + 6 * math.sqrt(2 * (len(cells) - 1))
