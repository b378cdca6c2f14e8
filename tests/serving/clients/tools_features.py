"""Chat completions: tools and their calls. A tiny model calls a tool where it must: a grammar writes the call then."""

import json
from typing import Any, Literal

import openai
import pydantic

from .chat_features import ask
from .facts import MESSAGES, TOOL_PARAMETERS
from .features import Case, feature

TOOLS = "tools"
WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {"name": "weather", "description": "The weather of a city.", "parameters": TOOL_PARAMETERS},
}
CLOCK: dict[str, Any] = {
    "type": "function",
    "function": {"name": "clock", "parameters": {"type": "object", "properties": {}}},
}
BOTH = [WEATHER, CLOCK]
SHORT: dict[str, Any] = {"temperature": 0, "max_completion_tokens": 110}


class Weather(pydantic.BaseModel):
    """The arguments of the tool, for the client's own parsing."""

    city: Literal["Seoul", "Busan"]
    days: Literal[1, 2, 3]


def one_call(answer: Any) -> Any:
    """Return the call of an answer that ends with it."""
    assert answer.choices[0].finish_reason == "tool_calls"
    call, *_ = answer.choices[0].message.tool_calls
    assert call.type == "function"
    return call


def check_weather(arguments: str) -> None:
    Weather.model_validate_json(arguments, strict=True)
    assert json.loads(arguments).keys() == TOOL_PARAMETERS["properties"].keys()


@feature(TOOLS, "`tool_choice` `required`")
def tools_required(case: Case) -> None:
    call = one_call(ask(case, tools=[WEATHER], tool_choice="required", parallel_tool_calls=False, **SHORT))
    assert call.function.name == "weather"
    check_weather(call.function.arguments)


@feature(TOOLS, "`tool_choice` of a function by name")
def tools_named(case: Case) -> None:
    for name in ("weather", "clock"):
        choice = {"type": "function", "function": {"name": name}}
        call = one_call(ask(case, tools=BOTH, tool_choice=choice, parallel_tool_calls=False, **SHORT))
        assert call.function.name == name


@feature(TOOLS, "`tool_choice` `auto`, `none`")
def tools_auto(case: Case) -> None:
    for choice in ("auto", "none"):
        answer = ask(case, tools=BOTH, tool_choice=choice, **SHORT)
        assert answer.choices[0].message.content
        assert not answer.choices[0].message.tool_calls  # a tiny model calls no tool by itself


@feature(TOOLS, "`parallel_tool_calls` false")
def tools_single(case: Case) -> None:
    answer = ask(case, tools=[WEATHER], tool_choice="required", parallel_tool_calls=False, **SHORT)
    assert len(answer.choices[0].message.tool_calls) == 1


@feature(TOOLS, "calls in a stream")
def tools_stream(case: Case) -> None:
    options = {"tools": [WEATHER], "tool_choice": "required", "parallel_tool_calls": False, **SHORT}
    whole = one_call(ask(case, **options))
    chunks = list(ask(case, stream=True, **options))
    deltas = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or ()]
    assert deltas[0].id
    assert deltas[0].function.name == "weather"
    assert "".join(delta.function.arguments or "" for delta in deltas) == whole.function.arguments
    assert {delta.index for delta in deltas} == {0}
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


@feature(TOOLS, "a call's result sent back")
def tools_result(case: Case) -> None:
    answer = ask(case, tools=[WEATHER], tool_choice="required", parallel_tool_calls=False, **SHORT)
    call = one_call(answer)
    result = {"role": "tool", "tool_call_id": call.id, "content": '{"sky": "rain"}'}
    again = ask(
        case, messages=[*MESSAGES, answer.choices[0].message, result], tools=[WEATHER], tool_choice="none", **SHORT
    )
    assert again.choices[0].message.content


@feature(TOOLS, "the helper `chat.completions.parse` with `pydantic_function_tool`")
def tools_parse(case: Case) -> None:
    tool = openai.pydantic_function_tool(Weather, name="weather")
    answer = case.client.chat.completions.parse(
        model=case.model, messages=MESSAGES, tools=[tool], tool_choice="required", parallel_tool_calls=False, **SHORT
    )
    assert isinstance(one_call(answer).function.parsed_arguments, Weather)
