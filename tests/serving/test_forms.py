"""Errors in the form of a request name the parameter as the client wrote it."""

from typing import Any, Literal

import pytest
from intaglio.serving.errors import ApiError
from intaglio.serving.forms import Body, checked


class Text(Body):
    type: Literal["text"]
    text: str


class Call(Body):
    type: Literal["call"]
    name: str


class Message(Body):
    role: str
    content: str | list[Text | Call]
    size: int | None = None


class Form(Body):
    messages: list[Message]
    stop: str | list[str] | None = None


def message(**changes: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "hi"} | changes]}


@pytest.mark.parametrize(
    ("values", "param", "reason"),
    [
        ({}, "messages", "messages: Field required"),
        ({"messages": {}}, "messages", "messages: Input should be a valid list"),
        ({"messages": [], "extra": 1}, "extra", "the parameter extra is not supported"),
        ({"messages": [1]}, "messages[0]", "messages[0]: Input should be an object"),
        ({"messages": [{"content": "hi"}]}, "messages[0].role", "messages[0].role: Field required"),
        (message(content=[{"type": "text"}]), "messages[0].content[0].text", "Field required"),
        (message(content=[{"type": "text", "text": 1}]), "messages[0].content[0].text", "a valid string"),
        (message(size="1"), "messages[0].size", "a valid integer"),
        (message(more=1), "messages[0].more", "the parameter messages[0].more is not supported"),
        (message(content=1), "messages[0].content", "should be a valid string, or: Input should be a valid list"),
        (message() | {"stop": ["a", 2]}, "stop[1]", "stop[1]: Input should be a valid string"),
    ],
)
def test_an_error_names_the_parameter(values: dict[str, Any], param: str, reason: str) -> None:
    with pytest.raises(ApiError) as refused:
        checked(Form, values)
    assert refused.value.param == param
    assert reason in refused.value.message
