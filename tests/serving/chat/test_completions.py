"""Chat completions over HTTP: the library's answers, whole and streamed, with every parameter that changes them."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from intaglio.runtime import TextGenerator
from intaglio.tests.runtime.fakes import text_generator

FAMILIES = ["qwen2", "exaone4"]
MESSAGES = [{"role": "system", "content": "You are brief."}, {"role": "user", "content": "hello there"}]
TOKENS = 12
TOOLS: list[dict[str, Any]] = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "parameters": {
                "type": "object",
                "properties": {
                    "day": {"enum": ["mon", "tue"]},
                    "hour": {"type": "integer", "minimum": 0, "maximum": 23},
                },
                "required": ["day", "hour"],
            },
        },
    },
    {"type": "function", "function": {"name": "clock"}},
]
SCHEMA = {
    "type": "object",
    "properties": {"ok": {"type": "boolean"}},
    "required": ["ok"],
    "additionalProperties": False,
}
AS_SCHEMA = {"type": "json_schema", "json_schema": {"name": "verdict", "strict": True, "schema": SCHEMA}}


@pytest.fixture(scope="module")
def library(artifacts: dict[str, Path]) -> Iterator[dict[str, TextGenerator]]:
    """The same artifacts in this process."""
    generators = {family: text_generator(artifacts[family], threads=1) for family in FAMILIES}
    yield generators
    for generator in generators.values():
        generator.close()


def ask(http: httpx.Client, **body: Any) -> dict[str, Any]:
    answer = http.post("/v1/chat/completions", json={"messages": MESSAGES, "max_completion_tokens": TOKENS} | body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def chunks(http: httpx.Client, **body: Any) -> list[dict[str, Any]]:
    given = {"messages": MESSAGES, "max_completion_tokens": TOKENS, "stream": True} | body
    text = http.post("/v1/chat/completions", json=given).text
    *events, done, rest = text.split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    return [json.loads(event.removeprefix("data: ")) for event in events]


def joined(streamed: list[dict[str, Any]], choice: int = 0) -> dict[str, Any]:
    """Return a choice of a stream as it is in a whole answer, without the ids of calls."""
    message: dict[str, Any] = {"role": "assistant", "content": None, "refusal": None}
    entries: list[Any] = []
    reason = None
    for chunk in streamed:
        for one in chunk["choices"]:
            if one["index"] != choice:
                continue
            assert reason is None, "a chunk after the end"
            reason = one["finish_reason"]
            entries += (one["logprobs"] or {}).get("content", [])
            for key in ("content", "reasoning_content"):
                if key in one["delta"]:
                    message[key] = (message.get(key) or "") + one["delta"][key]
            for call in one["delta"].get("tool_calls", []):
                calls = message.setdefault("tool_calls", [])
                if "id" in call:
                    assert call["index"] == len(calls)
                    calls.append({"type": "function", "function": {"name": call["function"]["name"], "arguments": ""}})
                calls[call["index"]]["function"]["arguments"] += call["function"]["arguments"]
    if not message["content"] and "tool_calls" in message:
        message["content"] = None
    return {"message": message, "finish_reason": reason, "logprobs": entries}


def without_ids(choice: dict[str, Any]) -> dict[str, Any]:
    message = dict(choice["message"])
    if "tool_calls" in message:
        message["tool_calls"] = [{key: call[key] for key in ("type", "function")} for call in message["tool_calls"]]
    logprobs = (choice["logprobs"] or {}).get("content", [])
    return {"message": message, "finish_reason": choice["finish_reason"], "logprobs": logprobs}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_greedy_answer_is_the_librarys(family: str, library: dict[str, TextGenerator], http: httpx.Client) -> None:
    reply = library[family].chat(MESSAGES, max_new_tokens=TOKENS)
    assert reply.generation is not None
    answer = ask(http, model=family)
    assert answer["object"] == "chat.completion"
    assert answer["model"] == family
    assert answer["choices"][0]["message"] == {"role": "assistant", "content": reply.text, "refusal": None}
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["prompt_tokens"] == len(reply.generation.prompt_token_ids)
    assert answer["usage"]["completion_tokens"] == TOKENS
    assert joined(chunks(http, model=family))["message"]["content"] == reply.text


@pytest.mark.parametrize("family", FAMILIES)
def test_choices_are_the_librarys_samples(family: str, library: dict[str, TextGenerator], http: httpx.Client) -> None:
    options: dict[str, Any] = {"temperature": 1.5, "top_p": 0.9, "seed": 11}
    prompt = library[family].chat_format.render(MESSAGES)
    tokenizer = library[family].tokenizer
    assert tokenizer is not None
    tokens = tokenizer.encode_with_offsets(prompt, add_special_tokens=False).ids
    samples = library[family].generate(tokens, max_new_tokens=TOKENS, num_return_sequences=3, **options)
    answer = ask(http, model=family, n=3, **options)
    texts = [one["message"]["content"] for one in answer["choices"]]
    assert texts == [sample.text for sample in samples]
    assert len(set(texts)) == 3
    assert answer["usage"]["completion_tokens"] == sum(len(sample.token_ids) for sample in samples)
    streamed = chunks(http, model=family, n=3, **options)
    assert [joined(streamed, index)["message"]["content"] for index in range(3)] == texts
    assert library[family].chat(MESSAGES, max_new_tokens=TOKENS, **options).text == texts[0]


def test_a_negative_seed_is_one_of_64_bits(http: httpx.Client, library: dict[str, TextGenerator]) -> None:
    reply = library["qwen2"].chat(MESSAGES, max_new_tokens=TOKENS, temperature=1.0, seed=2**64 - 3)
    assert ask(http, model="qwen2", temperature=1.0, seed=-3)["choices"][0]["message"]["content"] == reply.text


def test_log_probabilities(http: httpx.Client, library: dict[str, TextGenerator]) -> None:
    reply = library["qwen2"].chat(MESSAGES, max_new_tokens=TOKENS, logprobs=2)
    assert reply.generation is not None
    assert reply.generation.logprobs is not None
    answer = ask(http, model="qwen2", logprobs=True, top_logprobs=2)
    entries = answer["choices"][0]["logprobs"]["content"]
    assert [(one["token"], one["logprob"]) for one in entries] == [
        (one.text, one.logprob) for one in reply.generation.logprobs
    ]
    assert b"".join(bytes(one["bytes"]) for one in entries).decode() == answer["choices"][0]["message"]["content"]
    assert all(one["top_logprobs"][0]["logprob"] == one["logprob"] for one in entries)
    assert {len(one["top_logprobs"]) for one in entries} == {2}
    assert joined(chunks(http, model="qwen2", logprobs=True, top_logprobs=2))["logprobs"] == entries
    assert ask(http, model="qwen2")["choices"][0]["logprobs"] is None


def test_bytes_of_parts_of_characters(http: httpx.Client) -> None:
    """A model that is made to write one byte of a character at a time shows each of them."""
    body = {"model": "qwen2", "structured_outputs": {"regex": "☃"}, "logprobs": True}
    answer = ask(http, **body)["choices"][0]
    assert answer["message"]["content"] == "☃"
    entries = answer["logprobs"]["content"]
    assert b"".join(bytes(one["bytes"]) for one in entries) == "☃".encode()
    assert len(entries) > 1


def test_stop_strings(http: httpx.Client, library: dict[str, TextGenerator]) -> None:
    text = library["qwen2"].chat(MESSAGES, max_new_tokens=TOKENS).text
    word = text.split()[2]
    for stop in (word, ["zzz", word]):
        answer = ask(http, model="qwen2", stop=stop, max_tokens=TOKENS, max_completion_tokens=None)
        assert answer["choices"][0]["message"]["content"] == text.partition(word)[0]
        assert answer["choices"][0]["finish_reason"] == "stop"


def test_usage_in_a_stream(http: httpx.Client) -> None:
    streamed = chunks(http, model="qwen2", stream_options={"include_usage": True})
    assert [chunk["usage"] for chunk in streamed[:-1]] == [None] * (len(streamed) - 1)
    assert streamed[-1]["choices"] == []
    assert streamed[-1]["usage"]["completion_tokens"] == TOKENS
    assert len({chunk["id"] for chunk in streamed}) == 1
    assert streamed[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert "usage" not in chunks(http, model="qwen2")[0]


def test_prompts_that_begin_alike_are_read_once(http: httpx.Client) -> None:
    long = [{"role": "user", "content": "the city of " * 60}]
    first = ask(http, model="qwen2", messages=long)["usage"]
    second = ask(http, model="qwen2", messages=long)["usage"]
    assert second["prompt_tokens"] == first["prompt_tokens"]
    assert 0 < second["prompt_tokens_details"]["cached_tokens"] < second["prompt_tokens"]


@pytest.mark.parametrize("wanted", [{"chat_template_kwargs": {"enable_thinking": True}}, {"reasoning_effort": "low"}])
def test_a_thought(wanted: dict[str, Any], http: httpx.Client, library: dict[str, TextGenerator]) -> None:
    reply = library["exaone4"].chat(MESSAGES, enable_thinking=True, max_new_tokens=TOKENS)
    answer = ask(http, model="exaone4", **wanted)
    message = answer["choices"][0]["message"]
    assert (message["content"], message.get("reasoning_content", "")) == (reply.text, reply.thought)
    assert joined(chunks(http, model="exaone4", **wanted)) == without_ids(answer["choices"][0])
    assert answer["usage"]["completion_tokens_details"]["reasoning_tokens"] > 0


def test_an_answer_in_a_form_after_a_thought(http: httpx.Client, library: dict[str, TextGenerator]) -> None:
    """The model is made to think, and to end its thought soon."""
    tokenizer = library["exaone4"].tokenizer
    assert tokenizer is not None
    close = tokenizer.backend.token_to_id("</think>")
    body = {"model": "exaone4", "reasoning_effort": "high", "response_format": AS_SCHEMA, "max_completion_tokens": 80}
    answer = ask(http, **body, logit_bias={str(close): -100})
    assert answer["usage"]["completion_tokens_details"]["reasoning_tokens"] == 80
    assert answer["choices"][0]["message"]["reasoning_content"]
    assert answer["choices"][0]["finish_reason"] == "length"
    answer = ask(http, **body, logit_bias={str(close): 100})
    assert json.loads(answer["choices"][0]["message"]["content"])["ok"] in (True, False)
    assert joined(chunks(http, **body, logit_bias={str(close): 100})) == without_ids(answer["choices"][0])


def test_no_thought(http: httpx.Client) -> None:
    for wanted in ({"reasoning_effort": "none"}, {"chat_template_kwargs": {"enable_thinking": False}}):
        for family in FAMILIES:
            assert "reasoning_content" not in ask(http, model=family, **wanted)["choices"][0]["message"]


@pytest.mark.parametrize("family", FAMILIES)
def test_an_answer_in_a_form(family: str, http: httpx.Client) -> None:
    message = ask(http, model=family, response_format=AS_SCHEMA, max_completion_tokens=60)["choices"][0]["message"]
    assert json.loads(message["content"])["ok"] in (True, False)
    text = ask(http, model=family, response_format={"type": "json_object"})["choices"][0]["message"]["content"]
    assert text.startswith("{")
    assert ask(http, model=family, response_format={"type": "text"}) | {"id": 0, "created": 0, "usage": 0} == ask(
        http, model=family
    ) | {"id": 0, "created": 0, "usage": 0}


@pytest.mark.parametrize("name", ["weather", "clock"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_call_by_name(family: str, name: str, http: httpx.Client) -> None:
    body = {
        "model": family,
        "tools": TOOLS,
        "tool_choice": {"type": "function", "function": {"name": name}},
        "max_completion_tokens": 150,
    }
    choice = ask(http, **body)["choices"][0]
    (call,) = choice["message"]["tool_calls"]
    assert (call["function"]["name"], choice["finish_reason"], choice["message"]["content"]) == (
        name,
        "tool_calls",
        None,
    )
    assert set(json.loads(call["function"]["arguments"])) == ({"day", "hour"} if name == "weather" else set())
    assert joined(chunks(http, **body)) == without_ids(choice)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_call_that_is_required(family: str, http: httpx.Client) -> None:
    body = {"model": family, "tools": TOOLS, "tool_choice": "required", "max_completion_tokens": 150}
    several = ask(http, **body)["choices"][0]
    assert several["message"]["tool_calls"]
    assert joined(chunks(http, **body)) == without_ids(several)
    one = ask(http, **body, parallel_tool_calls=False)["choices"][0]
    assert (len(one["message"]["tool_calls"]), one["finish_reason"]) == (1, "tool_calls")
    allowed = {"mode": "required", "tools": [{"type": "function", "function": {"name": "weather"}}]}
    body["tool_choice"] = {"type": "allowed_tools", "allowed_tools": allowed}
    calls = ask(http, **body, parallel_tool_calls=False)["choices"][0]["message"]["tool_calls"]
    assert [call["function"]["name"] for call in calls] == ["weather"]


def test_a_call_after_a_thought(http: httpx.Client, library: dict[str, TextGenerator]) -> None:
    close = str(library["exaone4"].tokenizer.backend.token_to_id("</think>"))  # type: ignore[union-attr]
    choice = ask(
        http,
        model="exaone4",
        tools=TOOLS,
        tool_choice={"type": "function", "function": {"name": "clock"}},
        reasoning_effort="high",
        logit_bias={close: 100},
        max_completion_tokens=80,
    )["choices"][0]
    (call,) = choice["message"]["tool_calls"]
    assert (call["function"]["name"], json.loads(call["function"]["arguments"])) == ("clock", {})


def test_tools_that_may_be_called(http: httpx.Client, library: dict[str, TextGenerator]) -> None:
    """The tiny models do not call them by themselves."""
    shown = [
        TOOLS[0],
        {"type": "function", "function": {"name": "clock", "parameters": {"type": "object", "properties": {}}}},
    ]
    reply = library["qwen2"].chat(MESSAGES, tools=shown, max_new_tokens=TOKENS)
    assert ask(http, model="qwen2", tools=TOOLS)["choices"][0]["message"]["content"] == reply.text
    assert ask(http, model="qwen2", tools=TOOLS, tool_choice="none")["choices"] == ask(http, model="qwen2")["choices"]
    beside = ask(http, model="qwen2", tools=TOOLS, response_format=AS_SCHEMA, max_completion_tokens=150)["choices"][0]
    if beside["message"].get("tool_calls") is None:
        assert json.loads(beside["message"]["content"])["ok"] in (True, False)


def test_a_message_is_continued(http: httpx.Client, library: dict[str, TextGenerator]) -> None:
    messages = [*MESSAGES, {"role": "assistant", "content": "The city of"}]
    reply = library["qwen2"].chat(messages, continue_final_message=True, max_new_tokens=TOKENS)
    answer = ask(http, model="qwen2", messages=messages, continue_final_message=True, add_generation_prompt=False)
    assert answer["choices"][0]["message"]["content"] == reply.text


def test_parameters_without_effect(http: httpx.Client) -> None:
    plain = ask(http, model="qwen2")["choices"]
    accepted = {
        "user": "ada",
        "metadata": {"run": "7"},
        "store": False,
        "service_tier": "auto",
        "safety_identifier": "x",
        "prompt_cache_key": "k",
        "modalities": ["text"],
        "audio": None,
        "stream_options": None,
        "n": 1,
    }
    assert ask(http, model="qwen2", **accepted)["choices"] == plain
