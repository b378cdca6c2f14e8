"""Errors, headers and what else is the client's own."""

from typing import Any

import openai
import pytest

from .chat_features import GREEDY, ask, text
from .facts import MESSAGES
from .features import Case, feature

ERRORS = "errors and headers"


@feature(ERRORS, "`BadRequestError` names the parameter")
def errors_parameter(case: Case) -> None:
    wrong: dict[str, tuple[dict[str, Any], str]] = {
        "temperature": ({"temperature": -1}, "temperature"),
        "unknown": ({"extra_body": {"no_such": 1}}, "no_such"),
        "part": (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            "messages[0].content[0]",
        ),
    }
    for options, param in wrong.values():
        with pytest.raises(openai.BadRequestError) as error:
            ask(case, **options)
        assert error.value.param == param
        assert error.value.type == "invalid_request_error"
        assert param in error.value.message


@feature(ERRORS, "`BadRequestError` with `context_length_exceeded`")
def errors_context(case: Case) -> None:
    with pytest.raises(openai.BadRequestError) as error:
        ask(case, messages=[{"role": "user", "content": "Seoul " * 2000}])
    assert error.value.code == "context_length_exceeded"


@feature(ERRORS, "`NotFoundError` for a model")
def errors_model(case: Case) -> None:
    with pytest.raises(openai.NotFoundError) as error:
        case.client.chat.completions.create(model="nothing", messages=MESSAGES)
    assert error.value.code == "model_not_found"


@feature(ERRORS, "`with_raw_response`, `x-request-id`, `openai-processing-ms`")
def errors_raw(case: Case) -> None:
    raw = case.client.chat.completions.with_raw_response.create(model=case.model, messages=MESSAGES, **GREEDY)
    assert raw.headers["x-request-id"]
    assert float(raw.headers["openai-processing-ms"]) >= 0
    answer = raw.parse()
    assert text(answer) == case.facts.chat
    assert answer._request_id == raw.headers["x-request-id"]


@feature(ERRORS, "`with_streaming_response`")
def errors_streaming(case: Case) -> None:
    with case.client.chat.completions.with_streaming_response.create(
        model=case.model, messages=MESSAGES, stream=True, **GREEDY
    ) as raw:
        assert raw.headers["content-type"].startswith("text/event-stream")
        lines = [line for line in raw.iter_lines() if line]
    assert lines[-1] == "data: [DONE]"
