"""What chat completions refuse: 400 in OpenAI's form, with the parameter; and clients that leave."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from intaglio.serving.app import create_app
from intaglio.serving.engine.models import Models, named_models
from intaglio.serving.engine.observer import RequestRecord, Silent
from intaglio.serving.settings import Settings
from intaglio.tests.serving.live import live_app
from intaglio.tests.serving.raw import connection

MESSAGES = [{"role": "user", "content": "hello there"}]
CLOCK = {"type": "function", "function": {"name": "clock"}}
ODD = {"type": "function", "function": {"name": "odd", "parameters": {"type": "nothing"}}}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}


def schema(value: Any, **more: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": value, **more}}


CASES: list[tuple[dict[str, Any], str, str]] = [
    ({"functions": []}, "functions", "the server does not support it; give tools instead"),
    ({"function_call": "auto"}, "function_call", "give tool_choice instead"),
    ({"audio": {"voice": "x", "format": "wav"}}, "audio", "the model writes text"),
    ({"modalities": ["text", "audio"]}, "modalities", "at most 1 item"),
    ({"modalities": ["audio"]}, "modalities[0]", "should be 'text'"),
    ({"prediction": {"type": "content", "content": "x"}}, "prediction", "the answer is the same without it"),
    ({"web_search_options": {}}, "web_search_options", "give a tool that searches"),
    ({"verbosity": "low"}, "verbosity", "say in a message"),
    ({"store": True}, "store", "should be False"),
    ({"service_tier": "flex"}, "service_tier", "should be 'auto' or 'default'"),
    ({"chat_template": "{{ messages }}"}, "chat_template", "the parameter chat_template is not supported"),
    ({"temperature": 3}, "temperature", "less than or equal to 2"),
    ({"temperature": True}, "temperature", "a valid number"),
    ({"top_p": 0}, "top_p", "greater than 0"),
    ({"n": 0}, "n", "greater than or equal to 1"),
    ({"n": 129}, "n", "less than or equal to 128"),
    ({"seed": 2**63}, "seed", "less than 9223372036854775808"),
    ({"stop": ["a"] * 17}, "stop", "at most 16 items"),
    ({"stop": ""}, "stop", "at least 1 character"),
    ({"stop": "x" * 1001}, "stop", "at most 1000 characters"),
    ({"top_logprobs": 21, "logprobs": True}, "top_logprobs", "less than or equal to 20"),
    ({"top_logprobs": 2}, "top_logprobs", "needs logprobs true"),
    ({"logit_bias": {"a": 1}}, "logit_bias.a", "should match pattern"),
    ({"logit_bias": {"1": 101}}, "logit_bias.1", "less than or equal to 100"),
    ({"logit_bias": {"99999": 1}}, "logit_bias", "logit_bias 99999 is out of range"),
    ({"max_completion_tokens": 0}, "max_completion_tokens", "greater than or equal to 1"),
    ({"max_tokens": 5, "max_completion_tokens": 6}, "max_tokens", "give only the latter"),
    ({"stream_options": {"include_usage": True}}, "stream_options", "stream_options is for a stream"),
    ({"reasoning_effort": "high"}, "reasoning_effort", "cannot ask for a thought; leave it out, or give 'none'"),
    ({"reasoning_effort": "much"}, "reasoning_effort", "should be 'none', 'minimal'"),
    ({"chat_template_kwargs": {"enable_thinking": True}}, "chat_template_kwargs.enable_thinking", "does not read it"),
    ({"chat_template_kwargs": {"odd": 1}}, "chat_template_kwargs.odd", "does not read it; leave it out"),
    ({"chat_template_kwargs": {"messages": []}}, "chat_template_kwargs.messages", "the request itself says so"),
    ({"chat_template_kwargs": {"template": "x"}}, "chat_template_kwargs.template", "the request itself says so"),
    ({"add_generation_prompt": False}, "add_generation_prompt", "false leaves no turn to write"),
    ({"continue_final_message": True}, "continue_final_message", "the last message is not the assistant's"),
    ({"messages": [MESSAGES[0] | {"name": "Ada"}]}, "messages[0].name", "does not show names"),
    ({"tool_choice": "required"}, "tool_choice", "there are no tools"),
    ({"tools": [ODD], "tool_choice": "required"}, "tools", "cannot be used"),
    ({"tools": [CLOCK], "tool_choice": "required", "response_format": SCHEMA}, "tool_choice", "it leaves no answer"),
    ({"tools": [CLOCK], "structured_outputs": {"regex": "a"}}, "structured_outputs", "tools are called in it"),
    ({"response_format": {"type": "json_schema"}}, "response_format.json_schema", "type 'json_schema' needs it"),
    ({"response_format": SCHEMA | {"type": "text"}}, "response_format.json_schema", "it is not for type 'text'"),
    ({"response_format": {"type": "xml"}}, "response_format.type", "should be 'text', 'json_object' or 'json_schema'"),
    ({"response_format": schema({}) | {"strict": True}}, "response_format.strict", "is not supported"),
    ({"response_format": schema({"type": "odd"})}, "response_format.json_schema.schema", "Invalid type: odd"),
    ({"response_format": schema({"not": {}})}, "response_format.json_schema.schema", "cannot be used"),
    (
        {"response_format": schema({"type": "string", "pattern": "(?=a)"})},
        "response_format.json_schema.schema",
        "cannot",
    ),
    (
        {"response_format": schema({"type": "integer", "minimum": 2, "maximum": 1})},
        "response_format.json_schema.schema",
        "cannot be used",
    ),
    ({"structured_outputs": {"regex": "("}}, "structured_outputs", "the regex cannot be used"),
    ({"structured_outputs": {"regex": "a"}, "response_format": SCHEMA}, "structured_outputs", "give one of them"),
    ({"min_tokens": -1}, "min_tokens", "greater than or equal to 0"),
]


@pytest.mark.parametrize(("body", "param", "reason"), CASES)
def test_what_cannot_be_honoured_is_refused(body: dict[str, Any], param: str, reason: str, http: httpx.Client) -> None:
    given = {"model": "qwen2", "messages": MESSAGES, "max_completion_tokens": 4} | body
    for streamed in (False, True):
        if streamed and "stream_options" in body:
            continue
        answer = http.post("/v1/chat/completions", json=given | {"stream": streamed})
        assert answer.status_code == 400, answer.text
        error = answer.json()["error"]
        assert (error["param"], error["type"]) == (param, "invalid_request_error")
        assert reason in error["message"]


def test_long_conversations_are_refused_with_the_numbers(http: httpx.Client) -> None:
    for text in ("the city of " * 300, "the city of " * 3000):
        body: dict[str, Any] = {"model": "qwen2", "messages": [{"role": "user", "content": text}]}
        error = http.post("/v1/chat/completions", json=body).json()["error"]
        assert (error["code"], error["param"]) == ("context_length_exceeded", "messages")
        assert "512" in error["message"] or "511" in error["message"]
    body = {"model": "qwen2", "messages": MESSAGES, "max_completion_tokens": 600}
    error = http.post("/v1/chat/completions", json=body).json()["error"]
    assert (error["code"], error["param"]) == ("context_length_exceeded", "max_completion_tokens")
    assert "max_completion_tokens is 600, together more than the 512" in error["message"]


def test_an_answer_may_be_as_long_as_there_is_room(http: httpx.Client) -> None:
    body = {"model": "qwen2", "messages": MESSAGES, "ignore_eos": True}
    answer = http.post("/v1/chat/completions", json=body).json()
    assert answer["usage"]["total_tokens"] == 512
    assert answer["choices"][0]["finish_reason"] == "length"


def test_models_that_cannot_chat(http: httpx.Client) -> None:
    answer = http.post("/v1/chat/completions", json={"model": "sst2", "messages": MESSAGES})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "model"
    answer = http.post("/v1/chat/completions", json={"model": "none", "messages": MESSAGES})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")


def test_errors_do_not_name_folders(http: httpx.Client, artifacts: dict[str, Path]) -> None:
    deep: Any = "x"
    for _ in range(90):
        deep = {"a": deep}
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": deep}}}
    for body in ({"tools": [tool], "tool_choice": "required"}, {"chat_template_kwargs": {"odd": deep}}):
        answer = http.post("/v1/chat/completions", json={"model": "qwen2", "messages": MESSAGES} | body)
        assert answer.status_code == 400
        assert str(artifacts["qwen2"].parent) not in answer.text


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline, "it has not come"
        time.sleep(0.01)


class Outcomes(Silent):
    """Collects how requests end."""

    def __init__(self) -> None:
        self.seen: list[str | None] = []

    def finished(self, record: RequestRecord, now: float) -> None:
        self.seen.append(record.outcome)


@pytest.mark.parametrize("stream", [False, True])
def test_a_request_whose_client_leaves_ends(stream: bool, artifacts: dict[str, Path]) -> None:
    """Of eight choices one has the only slot and the others wait."""
    settings = Settings(slots=1, kept_prompts=0)
    models = Models(named_models({"qwen2": artifacts["qwen2"]}), settings, {"threads": 1})
    app = create_app(models, settings)
    models.observer = outcomes = Outcomes()
    short = {"messages": MESSAGES, "max_completion_tokens": 2}
    long = {"messages": MESSAGES, "ignore_eos": True, "n": 8, "temperature": 1.0, "stream": stream}
    raw = json.dumps(long).encode()
    head = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    with live_app(app) as address:
        assert httpx.post(f"{address}/v1/chat/completions", json=short, timeout=60).status_code == 200
        engine = models.engines["qwen2"]
        with connection(address) as left:
            left.sendall(f"{head}Content-Length: {len(raw)}\r\n\r\n".encode() + raw)
            until(lambda: engine.running > 0)
        until(lambda: len(outcomes.seen) == 9)
        assert outcomes.seen.count("cancelled") >= 6
        until(lambda: engine.running == engine.waiting == 0)
        assert httpx.post(f"{address}/v1/chat/completions", json=short, timeout=60).status_code == 200
