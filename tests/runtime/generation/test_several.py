"""Several prompts from an iterator, several continuations of each, and prompts that cannot be used."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from intaglio.errors import PromptError, UsageError
from intaglio.runtime import Generation, TextGenerator
from intaglio.runtime.engine.opening import open_session
from intaglio.tests.runtime import fakes
from intaglio.tests.runtime.fakes import text_generator

PROMPTS = [[5, 6, 7], [9] * 12, [20, 30, 40]]


@pytest.fixture(scope="module")
def lm(tmp_path_factory: pytest.TempPathFactory) -> TextGenerator:
    return text_generator(fakes.language_model(tmp_path_factory.mktemp("lm") / "lm"), threads=1)


def test_an_iterator_is_a_list_of_prompts(lm: TextGenerator) -> None:
    expected = lm.generate(PROMPTS, max_new_tokens=5)
    assert lm.generate((prompt for prompt in PROMPTS), max_new_tokens=5) == expected
    assert lm.generate(iter(PROMPTS[:1]), max_new_tokens=5) == expected[:1]
    assert lm.generate(iter(["stone"]), max_new_tokens=5) == [lm.generate("stone", max_new_tokens=5)]
    with pytest.raises(PromptError, match="there is no prompt"):
        lm.generate(iter([]))


def test_one_bad_prompt_does_not_lose_the_others(lm: TextGenerator) -> None:
    bad: list[Any] = [[5, 6, 7], "", [5] * 512, [9] * 12, None, [999], [1.5], [20, 30, 40]]
    with pytest.raises(PromptError, match="prompt 1 is empty"):
        lm.generate(bad, max_new_tokens=5)
    results = lm.generate(bad, max_new_tokens=5, errors="return")
    good = lm.generate(PROMPTS, max_new_tokens=5)
    assert [results[0], results[3], results[7]] == good
    messages = {index: str(one) for index, one in enumerate(results) if isinstance(one, PromptError)}
    assert list(messages) == [1, 2, 4, 5, 6]
    for index, message in messages.items():
        assert message.startswith(f"prompt {index}")
    assert lm.generate(bad[1:3], errors="return")[1:] != []
    # An error takes the places of all the results of its prompt.
    sampled = lm.generate(bad[:4], max_new_tokens=5, errors="return", num_return_sequences=2, temperature=1.0, seed=1)
    assert [isinstance(one, PromptError) for one in sampled] == [False] * 2 + [True] * 4 + [False] * 2
    searched = lm.generate(bad[:4], max_new_tokens=5, errors="return", num_return_sequences=2, num_beams=2)
    assert [isinstance(one, PromptError) for one in searched] == [False] * 2 + [True] * 4 + [False] * 2


def test_errors_are_for_lists(lm: TextGenerator) -> None:
    for prompt, errors in (([5, 6], "return"), (PROMPTS, "ignore")):
        with pytest.raises(UsageError, match=f"errors='{errors}' is for a list of prompts, and is 'raise' or 'return'"):
            lm.generate(prompt, errors=errors)  # type: ignore[call-overload]


def test_several_samples_of_each_prompt(lm: TextGenerator) -> None:
    """The first sample is the one that a call without the option gives; all are reproducible, and they differ."""
    options: dict[str, Any] = {"temperature": 1.5, "seed": 7, "max_new_tokens": 8}
    several = lm.generate(PROMPTS, num_return_sequences=3, **options)
    assert len(several) == 9
    assert several[::3] == lm.generate(PROMPTS, **options)
    assert [one.prompt_token_ids for one in several] == [tuple(prompt) for prompt in PROMPTS for _ in range(3)]
    assert len({one.token_ids for one in several}) == 9
    assert lm.generate(PROMPTS[0], num_return_sequences=3, batch_size=1, **options) == several[:3]
    (one,) = lm.generate(PROMPTS[0], num_return_sequences=1, **options)
    assert one == several[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_return_sequences": 0}, "num_return_sequences must be at least 1, not 0"),
        (
            {"num_return_sequences": 2},
            "num_return_sequences is 2, and all would be alike, since temperature is 0",
        ),
        ({"num_return_sequences": 3, "num_beams": 2}, "a search with 2 beams finds that many; give more num_beams"),
        ({"num_beams": 0}, "num_beams must be a whole number, 1 or more, not 0"),
        ({"num_beams": 2, "temperature": 0.5}, "num_beams is 2, which searches .* give temperature=0 or num_beams=1"),
        ({"num_beams": 2, "speculate": True}, "a beam search does not speculate: leave out speculate and draft"),
        ({"num_beams": 2, "early_stopping": "soon"}, "early_stopping must be True, False or 'never', not 'soon'"),
        ({"length_penalty": float("inf")}, "length_penalty must be a number, not inf"),
    ],
)
def test_counts_that_cannot_be(lm: TextGenerator, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        lm.generate([5, 6], **options)


def test_a_beam_search_in_every_way(lm: TextGenerator) -> None:
    """A stream has the text as one chunk, a conversation keeps its cache, a scheduler refuses."""
    options: dict[str, Any] = {"num_beams": 3, "max_new_tokens": 12, "logprobs": 2, "stop": "zzz"}
    expected = lm.generate("stone", **options)
    assert expected.score is not None
    assert expected.logprobs is not None
    total = sum(one.logprob for one in expected.logprobs)
    assert total / len(expected.token_ids) == pytest.approx(expected.score, abs=1e-4)
    stream = lm.stream("stone", **options)
    assert list(stream) == [expected.text]
    assert stream.generation == expected
    closed = lm.stream("stone", **options)
    closed.close()
    assert list(closed) == []
    with lm.conversation() as conversation:
        first = conversation.generate([5, 6, 7], max_new_tokens=4, eos_token_id=[])
        assert conversation.generate("stone", **options) == expected
        history = [5, 6, 7, *first.token_ids, 8]
        conversation.generate(history, max_new_tokens=2)
        assert conversation.reused == 6  # all that the decoder has read, and the first turn's last token it has not
    with lm.scheduler(slots=2) as scheduler, pytest.raises(UsageError, match="a scheduler has no beam search"):
        scheduler.submit("stone", num_beams=2)


def test_settings_give_the_same_in_every_way(lm: TextGenerator) -> None:
    options: dict[str, Any] = {"no_repeat_ngram_size": 2, "presence_penalty": 0.9, "logit_bias": {9: 2.0}}
    options |= {"min_new_tokens": 12, "max_new_tokens": 16, "temperature": 1.2, "typical_p": 0.8, "seed": 4}
    expected = lm.generate("stone", **options)
    plain = lm.generate("stone", max_new_tokens=16, temperature=1.2, typical_p=0.8, seed=4)
    assert expected.token_ids != plain.token_ids
    assert lm.generate("stone", speculate=False, **options) == expected
    assert lm.generate(["stone", "seal"], **options)[0] == expected
    stream = lm.stream("stone", **options)
    assert "".join(stream) == expected.text
    assert stream.generation == expected
    with lm.conversation() as conversation:
        conversation.generate("sto", max_new_tokens=2)
        assert conversation.generate("stone", **options) == expected
    with lm.scheduler(slots=2) as scheduler:
        number = scheduler.submit("stone", **options)
        scheduler.submit([5, 6], max_new_tokens=9, temperature=1.0)
        results = [event for _ in range(20) for event in scheduler.step() if event.result is not None]
    assert next(event.result for event in results if event.request == number) == expected


def test_beams_copy_the_caches_of_sliding_layers(tmp_path: Path) -> None:
    """A cache that keeps the whole text of sliding layers gives the same, far beyond their windows and slack."""
    folder = fakes.language_model(tmp_path / "lm", layer_windows=(6, None))
    lm = text_generator(folder, threads=1)
    assert lm.session.windowed
    whole = TextGenerator(open_session(folder, lm.manifest, threads=1), lm.tokenizer, lm.defaults)
    assert not whole.session.windowed
    options: dict[str, Any] = {"num_beams": 3, "num_return_sequences": 3, "max_new_tokens": 150, "eos_token_id": []}
    for ours, theirs in zip(lm.generate([5, 6], **options), whole.generate([5, 6], **options), strict=True):
        assert ours.token_ids == theirs.token_ids
        assert ours.score == pytest.approx(theirs.score, abs=1e-4)


def test_a_beam_search_within_a_grammar(lm: TextGenerator) -> None:
    pytest.importorskip("llguidance")
    results = lm.generate("x", regex="(yes|no|maybe)", num_beams=3, num_return_sequences=3)
    assert {one.text for one in results} == {"yes", "no", "maybe"}
    scores = [one.score for one in results if one.score is not None]
    assert sorted(scores, reverse=True) == scores
    assert {one.finish_reason for one in results} == {"stop"}
    only = lm.generate("x", regex="yes", num_beams=3, num_return_sequences=3)
    assert {one.text for one in only} == {"yes"}


def test_time_that_is_over(lm: TextGenerator, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock advances by a second each time that it is read: at the call, before the first token, and at each."""
    from intaglio.runtime.sequence import request, sequence

    class Clock:
        now = 0.0

        def monotonic(self) -> float:
            self.now += 1.0
            return self.now

    def run(**options: Any) -> Generation:
        for module in (request, sequence):
            monkeypatch.setattr(module, "time", clock)
        result = lm.generate([5, 6], max_new_tokens=20, eos_token_id=[], speculate=False, **options)
        assert isinstance(result, Generation)
        return result

    clock = Clock()
    result = run(max_time=4.5)
    assert (len(result.token_ids), result.finish_reason) == (4, "time")
    clock = Clock()
    late = run(max_time=0.5)
    assert (late.token_ids, late.text, late.finish_reason) == ((), "", "time")
    clock = Clock()
    assert run(max_time=1e6).finish_reason == "length"
    clock = Clock()
    beams = run(max_time=8.5, num_beams=2)
    assert (1 <= len(beams.token_ids) < 20, beams.finish_reason) == (True, "time")


class TestOwnProcessors:
    def test_it_sees_the_tokens_and_chooses(self, lm: TextGenerator) -> None:
        seen: list[list[int]] = []

        def only_even(tokens: Any, logits: Any) -> Any:
            seen.append(tokens.tolist())
            logits[1::2] = -np.inf  # it has its own copy
            return logits

        options: dict[str, Any] = {"max_new_tokens": 6, "eos_token_id": []}
        result = lm.generate([5, 6, 7], logits_processor=only_even, speculate=False, **options)
        assert all(token % 2 == 0 for token in result.token_ids)
        assert seen == [[5, 6, 7, *result.token_ids[:count]] for count in range(6)]
        assert lm.generate([5, 6, 7], logits_processor=[only_even], **options) == result
        assert lm.generate(PROMPTS, logits_processor=only_even, **options)[0] == result
        assert "".join(lm.stream([5, 6, 7], logits_processor=only_even, **options)) == result.text
        logprobs = lm.generate([5, 6, 7], logits_processor=only_even, logprobs=0, **options).logprobs
        assert logprobs is not None
        assert np.isfinite([one.logprob for one in logprobs]).all()  # the model's own

    def test_it_runs_after_the_others_in_order(self, lm: TextGenerator) -> None:
        def free(tokens: Any, logits: Any) -> Any:
            return np.where(np.isinf(logits), 0, logits) + 100 * np.eye(logits.size)[77]

        def forbid(tokens: Any, logits: Any) -> Any:
            logits[77] = -np.inf
            return logits

        options: dict[str, Any] = {"max_new_tokens": 1, "suppress_tokens": [77]}
        assert lm.generate([5], logits_processor=[free], logit_bias={77: 100}, **options).token_ids == (77,)
        assert lm.generate([5], logits_processor=[free, forbid], **options).token_ids != (77,)

    @pytest.mark.parametrize(
        ("processor", "message"),
        [
            (5, "logits_processor must be a function of .token ids, logits., or a list of them, not 5"),
            ([len, "x"], "logits_processor must be a function of .* not 'x'"),
            (lambda tokens, logits: None, r"logits_processor returned None; return logits of shape \(288,\)"),
            (lambda tokens, logits: logits[:5], r"logits_processor returned float32 of shape \(5,\)"),
            (lambda tokens, logits: logits > 0, r"logits_processor returned bool of shape \(288,\)"),
            (lambda tokens, logits: logits * np.nan, "logits_processor returned NaN or infinity; give minus infinity"),
        ],
    )
    def test_what_it_may_be_and_return(self, lm: TextGenerator, processor: Any, message: str) -> None:
        with pytest.raises(UsageError, match=message):
            lm.generate([5], logits_processor=processor)

    def test_its_own_error_is_not_changed(self, lm: TextGenerator) -> None:
        def broken(tokens: Any, logits: Any) -> Any:
            raise KeyError("mine")

        with pytest.raises(KeyError, match="mine"):
            lm.generate([5], logits_processor=broken)

    def test_it_cannot_change_the_tokens(self, lm: TextGenerator) -> None:
        def write(tokens: Any, logits: Any) -> Any:
            tokens[0] = 1

        with pytest.raises(ValueError, match="read-only"):
            lm.generate([5], logits_processor=write)


def test_penalties_of_occurrence_are_openais(lm: TextGenerator) -> None:
    """mu[j] - count[j] * frequency - (count[j] > 0) * presence, over generated tokens alone."""
    presence, frequency = 0.7, 1.3

    def expected(tokens: Any, logits: Any) -> Any:
        counts = np.bincount(tokens[3:], minlength=logits.size)
        return logits - frequency * counts - presence * (counts > 0)

    found = lm.generate([5, 6, 7], max_new_tokens=20, eos_token_id=[], logits_processor=expected)
    options: dict[str, Any] = {"presence_penalty": presence, "frequency_penalty": frequency, "eos_token_id": []}
    assert lm.generate([5, 6, 7], max_new_tokens=20, **options) == found
    assert lm.generate([5, 6, 7], max_new_tokens=20, eos_token_id=[]) != found


def test_a_bias_may_have_keys_of_text_as_json_has(lm: TextGenerator) -> None:
    assert lm.generate([5], max_new_tokens=2, logit_bias={"77": 1000}).token_ids == (77, 77)
    assert lm.generate([5], max_new_tokens=2, sequence_bias={(77,): 1000.0, (77, 78): 3000.0}).token_ids == (77, 78)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"logit_bias": {300: 1.0}}, "logit_bias 300 is out of range, the model's ids are 0 to 287"),
        ({"logit_bias": {5: float("nan")}}, "logit_bias must be a mapping from token ids to numbers"),
        ({"logit_bias": [5]}, "logit_bias must be a mapping from token ids to numbers"),
        ({"bad_words_ids": [5]}, "bad_words_ids must be a list of lists of token ids, not"),
        ({"bad_words_ids": [[5, 288]]}, "bad_words_ids 288 is out of range"),
        ({"suppress_tokens": ["a"]}, "suppress_tokens must be a token id or a list of them, not"),
        ({"no_repeat_ngram_size": -1}, "no_repeat_ngram_size must be a whole number, 0 or more, not -1"),
        ({"presence_penalty": 3}, "presence_penalty must be between -2 and 2, not 3"),
        ({"max_time": 0}, "max_time must be a number of seconds above 0, not 0"),
        ({"min_new_tokens": True}, "min_new_tokens must be a whole number, 0 or more, not True"),
        ({"typical_p": 0}, "typical_p must be above 0 and at most 1, not 0"),
        ({"suppress_tokens": list(range(288))}, "the settings exclude every token .*; exclude fewer"),
        ({"suppress_tokens": list(range(288)), "num_beams": 2}, "the settings exclude every token .*; exclude fewer"),
    ],
)
def test_values_that_cannot_be(lm: TextGenerator, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        lm.generate([5, 6], **options)


def test_a_grammar_counts_more_than_what_excludes_all_that_it_allows(lm: TextGenerator) -> None:
    pytest.importorskip("llguidance")
    options: dict[str, Any] = {"regex": "(ab|ba)", "max_new_tokens": 10}
    plain = lm.generate("x", **options)
    other = lm.generate("x", suppress_tokens=[plain.token_ids[0]], **options)
    assert {plain.text, other.text} == {"ab", "ba"}
    assert lm.generate("x", min_new_tokens=9, no_repeat_ngram_size=1, **options).text in ("ab", "ba")
    assert lm.generate("x", suppress_tokens=list(range(288)), **options) == plain
