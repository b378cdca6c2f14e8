"""``/v1/completions`` against the library: the same texts, log-probabilities and counts, whole and streamed."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from intaglio.runtime import TextGenerator, load
from intaglio.tests.runtime.fakes import logprobs_of, tokenizer_of
from openai import BadRequestError, OpenAI

PROMPT = "The ship sailed to"
FAMILIES = ["qwen2", "exaone4"]


@pytest.fixture(scope="module")
def library(artifacts: dict[str, Path]) -> dict[str, TextGenerator]:
    """The same artifacts, loaded in the test."""
    return {name: load(artifacts[name], task="text-generation", threads=1) for name in FAMILIES}


@pytest.fixture
def client(server: str) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{server}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.mark.parametrize("name", FAMILIES)
def test_a_completion_is_the_librarys_generation(client: OpenAI, library: dict[str, TextGenerator], name: str) -> None:
    expected = library[name].generate(PROMPT, max_new_tokens=12, temperature=0.0)
    answer = client.completions.create(model=name, prompt=PROMPT, max_tokens=12, temperature=0)
    assert answer.object == "text_completion"
    assert answer.model == name
    assert answer.id.startswith("cmpl-")
    [choice] = answer.choices
    assert choice.text == expected.text
    assert choice.finish_reason == {"eos": "stop", "length": "length"}[expected.finish_reason]
    assert choice.logprobs is None
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == len(expected.prompt_token_ids)
    assert answer.usage.completion_tokens == len(expected.token_ids)
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_without_max_tokens_a_completion_has_16(client: OpenAI) -> None:
    answer = client.completions.create(model="qwen2", prompt=PROMPT, temperature=0, extra_body={"ignore_eos": True})
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 16


@pytest.mark.parametrize("name", FAMILIES)
def test_texts_and_token_ids_alone_and_listed_are_the_same_prompts(
    client: OpenAI, library: dict[str, TextGenerator], name: str
) -> None:
    texts = [PROMPT, "A seal"]
    ids = [tokenizer_of(library[name]).encode(text) for text in texts]
    expected = [one.text for one in library[name].generate(texts, max_new_tokens=6, temperature=0.0)]
    given: list[Any] = [texts[0], ids[0], texts, ids]
    for prompt, found in zip(given, [expected[:1], expected[:1], expected, expected], strict=True):
        answer = client.completions.create(model=name, prompt=prompt, max_tokens=6, temperature=0)
        assert [choice.text for choice in answer.choices] == found
        assert [choice.index for choice in answer.choices] == list(range(len(found)))
        assert answer.usage is not None
        assert answer.usage.prompt_tokens == sum(map(len, ids[: len(found)]))


def test_the_choices_of_a_seed_are_the_librarys(client: OpenAI, library: dict[str, TextGenerator]) -> None:
    settings: dict[str, Any] = {"temperature": 1.0, "seed": 7, "top_p": 0.9}
    expected = library["qwen2"].generate([PROMPT, "A"], max_new_tokens=8, num_return_sequences=3, top_k=20, **settings)
    answer = client.completions.create(
        model="qwen2", prompt=[PROMPT, "A"], n=3, best_of=3, max_tokens=8, extra_body={"top_k": 20}, **settings
    )
    assert [choice.text for choice in answer.choices] == [one.text for one in expected]
    assert len({choice.text for choice in answer.choices}) > 2


def test_options_reach_the_runtime(client: OpenAI, library: dict[str, TextGenerator]) -> None:
    """Check one parameter at a time, each with another text than without it."""
    plain = client.completions.create(model="qwen2", prompt=PROMPT, max_tokens=12, temperature=0).choices[0].text
    first = library["qwen2"].generate(PROMPT, max_new_tokens=1, temperature=0.0).token_ids[0]
    theirs: dict[str, dict[str, Any]] = {
        "stop": {"stop": plain[3:6]},
        "logit_bias": {"logit_bias": {str(first): -100}},
        "frequency_penalty": {"frequency_penalty": 2.0},
        "presence_penalty": {"presence_penalty": 2.0},
    }
    for name, options in theirs.items():
        expected = library["qwen2"].generate(PROMPT, max_new_tokens=12, temperature=0.0, **options)
        found = client.completions.create(model="qwen2", prompt=PROMPT, max_tokens=12, temperature=0, **options)
        assert found.choices[0].text == expected.text != plain, name
    more: dict[str, Any] = {"structured_outputs": {"regex": "[0-9]{3}"}}
    found = client.completions.create(model="qwen2", prompt=PROMPT, max_tokens=12, temperature=0, extra_body=more)
    assert len(found.choices[0].text) == 3
    assert found.choices[0].text.isdigit()


@pytest.mark.parametrize("name", FAMILIES)
def test_log_probabilities_are_the_librarys(client: OpenAI, library: dict[str, TextGenerator], name: str) -> None:
    expected = library[name].generate(PROMPT, max_new_tokens=8, temperature=0.0, logprobs=3)
    answer = client.completions.create(model=name, prompt=PROMPT, max_tokens=8, temperature=0, logprobs=3)
    lists = answer.choices[0].logprobs
    assert lists is not None
    assert lists.top_logprobs is not None
    assert lists.token_logprobs is not None
    entries = logprobs_of(expected)
    assert lists.tokens == [entry.text for entry in entries]
    np.testing.assert_allclose(lists.token_logprobs, [entry.logprob for entry in entries], atol=1e-4)
    for found, entry in zip(lists.top_logprobs, entries, strict=True):
        assert found == pytest.approx({one.text: one.logprob for one in entry.top}, abs=1e-4)
    text, offsets, tokens = answer.choices[0].text, lists.text_offset, lists.tokens
    assert offsets is not None
    assert tokens is not None
    ends = [*offsets[1:], len(text)]
    shown = [text[start:end] for start, end in zip(offsets, ends, strict=True)]
    assert shown == [token if index < len(text) else "" for token, index in zip(tokens, offsets, strict=True)]


def test_the_chosen_token_is_listed_where_it_is_not_among_the_likeliest(client: OpenAI) -> None:
    answer = client.completions.create(model="qwen2", prompt=PROMPT, max_tokens=12, temperature=1, seed=3, logprobs=1)
    lists = answer.choices[0].logprobs
    assert lists is not None
    assert lists.top_logprobs
    assert lists.token_logprobs
    assert lists.tokens
    for token, logprob, top in zip(lists.tokens, lists.token_logprobs, lists.top_logprobs, strict=True):
        assert top[token] == logprob
    assert {len(top) for top in lists.top_logprobs} == {1, 2}


def test_without_likeliest_tokens_there_are_only_the_chosen_ones(client: OpenAI) -> None:
    answer = client.completions.create(model="qwen2", prompt=PROMPT, max_tokens=2, temperature=0, logprobs=0)
    lists = answer.choices[0].logprobs
    assert lists is not None
    assert lists.top_logprobs is None
    assert lists.token_logprobs is not None
    assert len(lists.token_logprobs) == 2


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("new_tokens", [0, 1, 4])
def test_an_echo_scores_the_prompt(
    client: OpenAI, library: dict[str, TextGenerator], name: str, new_tokens: int
) -> None:
    ids = tokenizer_of(library[name]).encode(PROMPT)
    score = library[name].score(ids, logprobs=2)
    for prompt in (ids, PROMPT):
        answer = client.completions.create(
            model=name, prompt=prompt, max_tokens=new_tokens, temperature=0, logprobs=2, echo=True
        )
        [choice] = answer.choices
        assert choice.text.startswith(PROMPT)
        assert choice.finish_reason == "length"
        lists = choice.logprobs
        assert lists is not None
        assert lists.token_logprobs
        assert lists.top_logprobs
        assert lists.tokens
        assert lists.text_offset
        assert lists.token_logprobs[0] is None
        assert lists.top_logprobs[0] is None
        assert len(lists.tokens) == len(ids) + new_tokens == len(lists.token_logprobs)
        np.testing.assert_allclose(lists.token_logprobs[1 : len(ids)], score.logprobs, atol=1e-4)
        assert score.top is not None
        for found, top, token in zip(lists.top_logprobs[1 : len(ids)], score.top, score.tokens, strict=True):
            assert [*found][:2] == [one.text for one in top]
            assert token in found
        assert "".join(lists.tokens[: len(ids)]) == PROMPT
        for start, token in zip(lists.text_offset, lists.tokens, strict=True):
            assert choice.text[start:].startswith(token)
        assert answer.usage is not None
        assert answer.usage.completion_tokens == new_tokens


def test_an_echo_without_log_probabilities_is_the_prompt_and_its_continuation(client: OpenAI) -> None:
    plain = client.completions.create(model="qwen2", prompt=PROMPT, max_tokens=3, temperature=0)
    answer = client.completions.create(model="qwen2", prompt=PROMPT, max_tokens=3, temperature=0, echo=True)
    assert answer.choices[0].text == PROMPT + plain.choices[0].text
    assert answer.choices[0].logprobs is None


def test_the_score_of_one_token_has_no_numbers(http: httpx.Client) -> None:
    body = {"model": "qwen2", "prompt": [40], "max_tokens": 0, "logprobs": 1, "echo": True}
    lists = http.post("/v1/completions", json=body).json()["choices"][0]["logprobs"]
    assert lists["token_logprobs"] == lists["top_logprobs"] == [None]


@pytest.mark.parametrize("echo", [False, True])
def test_a_stream_has_the_parts_of_the_whole(client: OpenAI, echo: bool) -> None:
    settings: dict[str, Any] = {"model": "qwen2", "prompt": [PROMPT, "A"], "n": 2, "echo": echo, "logprobs": 2}
    settings |= {"max_tokens": 6, "temperature": 1.0, "seed": 5}
    whole = client.completions.create(**settings)
    chunks = list(client.completions.create(**settings, stream=True, stream_options={"include_usage": True}))
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert whole.usage is not None
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert chunks[-1].usage.prompt_tokens == whole.usage.prompt_tokens
    assert {chunk.id for chunk in chunks} == {chunks[0].id}
    assert all(chunk.usage is None for chunk in chunks[:-1])
    for choice in whole.choices:
        parts = [part for chunk in chunks for part in chunk.choices if part.index == choice.index]
        assert len(parts) > 1
        assert "".join(part.text for part in parts) == choice.text
        assert [part.finish_reason for part in parts] == [None] * (len(parts) - 1) + [choice.finish_reason]
        joined = [one for part in parts if part.logprobs for one in part.logprobs.token_logprobs or []]
        assert choice.logprobs is not None
        assert choice.logprobs.token_logprobs is not None
        assert joined[echo:] == pytest.approx(choice.logprobs.token_logprobs[echo:], abs=1e-4)
        offsets = [one for part in parts if part.logprobs for one in part.logprobs.text_offset or []]
        assert offsets == choice.logprobs.text_offset


REFUSALS: dict[str, tuple[dict[str, Any], str | None, str]] = {
    "no prompt": ({"prompt": None}, "prompt", "prompt: "),
    "empty list": ({"prompt": []}, "prompt", "prompt: "),
    "empty text": ({"prompt": ""}, "prompt", "the prompt is empty: it has no tokens; give at least one"),
    "mixed list": ({"prompt": ["a", 1]}, "prompt[1]", "prompt[1]: Input should be a valid string"),
    "no such id": (
        {"prompt": [5, 999_999]},
        "prompt",
        "the prompt: token id 999999 is out of range, the model's ids are 0 to 4099; "
        "tokenize the text with this model's own tokenizer",
    ),
    "huge id": ({"prompt": [10**30]}, "prompt", "the prompt"),
    "suffix": ({"suffix": "x"}, "suffix", "suffix is not supported: the models continue a text; leave it out"),
    "best_of": (
        {"best_of": 3},
        "best_of",
        "best_of=3 is not supported: every continuation is an answer; leave it out, and give n",
    ),
    "max_tokens": (
        {"max_tokens": 0},
        "max_tokens",
        "max_tokens must be at least 1; 0 is for echo=true, which gives the prompt",
    ),
    "logprobs": ({"logprobs": 21}, "logprobs", "logprobs: Input should be less than or equal to 20"),
    "stream_options": (
        {"stream_options": {}},
        "stream_options",
        "stream_options is for a stream; give stream=true, or leave it out",
    ),
    "too many": (
        {"prompt": ["a"] * 40, "n": 2},
        "prompt",
        "the call asks for 80 continuations, and 72 are the most at once; give fewer prompts or n",
    ),
    "unknown": ({"messages": []}, "messages", "the parameter messages is not supported"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_what_cannot_be_honoured_is_refused(http: httpx.Client, case: str) -> None:
    change, param, message = REFUSALS[case]
    answer = http.post("/v1/completions", json={"model": "qwen2", "prompt": "A"} | change)
    error = answer.json()["error"]
    assert answer.status_code == 400, error
    assert error["param"] == param
    assert error["message"].startswith(message)


def test_a_text_that_is_too_long_has_a_code(client: OpenAI) -> None:
    for prompt, tokens in (([5] * 500, 100), ("word " * 100_000, 1), ([5] * 600, 1)):
        with pytest.raises(BadRequestError) as caught:
            client.completions.create(model="qwen2", prompt=prompt, max_tokens=tokens)
        assert caught.value.code == "context_length_exceeded"


def test_a_head_does_not_complete_texts(client: OpenAI) -> None:
    with pytest.raises(BadRequestError, match="the model 'sst2' is for text-classification"):
        client.completions.create(model="sst2", prompt="A")
