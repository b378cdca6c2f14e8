"""Chat completions: answers that are JSON."""

import json
from typing import Any, Literal

import pydantic

from .chat_features import ask, text
from .facts import MESSAGES, SCHEMA
from .features import Case, feature

STRUCTURED = "`response_format`"
LONG: dict[str, Any] = {"temperature": 0, "max_completion_tokens": 110}
FORMAT = {"type": "json_schema", "json_schema": {"name": "weather", "schema": SCHEMA, "strict": True}}


class Weather(pydantic.BaseModel):
    """The form of the answer, for the client's own parsing."""

    city: Literal["Seoul", "Busan"]
    hot: bool


@feature(STRUCTURED, "`json_schema`")
def structured_schema(case: Case) -> None:
    answer = ask(case, response_format=FORMAT, **LONG)
    Weather.model_validate_json(text(answer), strict=True)
    assert answer.choices[0].finish_reason == "stop"


@feature(STRUCTURED, "`json_schema` in a stream")
def structured_stream(case: Case) -> None:
    chunks = list(ask(case, response_format=FORMAT, stream=True, **LONG))
    Weather.model_validate_json("".join(chunk.choices[0].delta.content or "" for chunk in chunks), strict=True)


@feature(STRUCTURED, "`json_object`")
def structured_object(case: Case) -> None:
    answer = ask(case, response_format={"type": "json_object"}, temperature=0, max_completion_tokens=200)
    if answer.choices[0].finish_reason == "stop":
        assert isinstance(json.loads(text(answer)), dict)
    else:  # a tiny model may write a key without end
        assert text(answer).startswith("{")


@feature(STRUCTURED, "the helper `chat.completions.parse` with a pydantic model")
def structured_parse(case: Case) -> None:
    answer = case.client.chat.completions.parse(model=case.model, messages=MESSAGES, response_format=Weather, **LONG)
    assert isinstance(answer.choices[0].message.parsed, Weather)


@feature(STRUCTURED, "the helper `chat.completions.stream` with a pydantic model")
def structured_stream_helper(case: Case) -> None:
    with case.client.chat.completions.stream(
        model=case.model, messages=MESSAGES, response_format=Weather, **LONG
    ) as stream:
        for _ in stream:
            pass
        final = stream.get_final_completion()
    assert isinstance(final.choices[0].message.parsed, Weather)
