"""The body of a response: what it becomes in chat, and what is refused."""

from typing import Any

import pytest
from intaglio.serving.errors import ApiError
from intaglio.serving.forms import checked
from intaglio.serving.protocol.responses.body import ResponsesBody
from intaglio.serving.protocol.responses.turn import Turn, turn_of

CALL = {"type": "function_call", "call_id": "call-1", "name": "sky", "arguments": '{"city": "Seoul"}'}
CHAT_CALL = {"id": "call-1", "type": "function", "function": {"name": "sky", "arguments": '{"city": "Seoul"}'}}


def body(**values: Any) -> ResponsesBody:
    return checked(ResponsesBody, {"input": "hi"} | values)


def chat(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in turn_of(body(**values)).chat.items() if value is not None}


def test_a_text_is_a_message_of_the_user() -> None:
    assert chat(instructions="Be brief.") == {
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}]
    }


def test_items_of_the_assistant_are_one_turn() -> None:
    thought = {"type": "reasoning", "id": "rs-1", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm."}]}
    answer = {
        "type": "message",
        "id": "msg-1",
        "status": "completed",
        "role": "assistant",
        "content": [{"type": "output_text", "text": "One moment.", "annotations": [], "logprobs": []}],
    }
    result = {"type": "function_call_output", "call_id": "call-1", "output": [{"type": "input_text", "text": "rain"}]}
    items = [
        {"role": "developer", "content": "x"},
        thought,
        answer,
        CALL,
        result,
        {"role": "assistant", "content": "It rains."},
    ]
    assert chat(input=items)["messages"] == [
        {"role": "developer", "content": "x"},
        {
            "role": "assistant",
            "reasoning_content": "Hm.",
            "content": [{"type": "text", "text": "One moment."}],
            "tool_calls": [CHAT_CALL],
        },
        {"role": "tool", "tool_call_id": "call-1", "content": [{"type": "text", "text": "rain"}]},
        {"role": "assistant", "content": "It rains."},
    ]


def test_a_message_after_a_complete_turn_is_another_one() -> None:
    messages = chat(input=[CALL, {"role": "assistant", "content": "a"}, {"role": "assistant", "content": "b"}])[
        "messages"
    ]
    assert messages == [
        {"role": "assistant", "tool_calls": [CHAT_CALL]},
        {"role": "assistant", "content": "a"},
        {"role": "assistant", "content": "b"},
    ]


def test_settings_have_the_names_of_chat() -> None:
    tool = {
        "type": "function",
        "name": "sky",
        "description": "The sky.",
        "parameters": {"type": "object"},
        "strict": True,
    }
    schema = {"type": "json_schema", "name": "sky", "schema": {"type": "object"}, "strict": True}
    found = chat(
        tools=[tool],
        tool_choice={"type": "function", "name": "sky"},
        parallel_tool_calls=False,
        text={"format": schema, "verbosity": "medium"},
        reasoning={"effort": "low", "summary": None},
        max_output_tokens=9,
        temperature=0,
        top_p=0.5,
        top_logprobs=2,
        include=["message.output_text.logprobs"],
        store=False,
        background=None,
        truncation="disabled",
        user="me",
    )
    del found["messages"]
    del tool["type"], schema["type"]
    assert found == {
        "tools": [{"type": "function", "function": tool}],
        "tool_choice": {"type": "function", "function": {"name": "sky"}},
        "parallel_tool_calls": False,
        "response_format": {"type": "json_schema", "json_schema": schema},
        "reasoning_effort": "low",
        "max_completion_tokens": 9,
        "temperature": 0,
        "top_p": 0.5,
        "logprobs": True,
        "top_logprobs": 2,
    }


def test_allowed_tools_have_the_form_of_chat() -> None:
    choice = {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "sky"}]}
    assert chat(tool_choice=choice)["tool_choice"] == {
        "type": "allowed_tools",
        "allowed_tools": {"mode": "required", "tools": [{"type": "function", "function": {"name": "sky"}}]},
    }


@pytest.mark.parametrize(
    ("values", "param", "reason"),
    [
        ({"previous_response_id": "resp-1"}, "previous_response_id", "the server keeps no responses"),
        ({"conversation": "conv-1"}, "conversation", "send the whole conversation as input"),
        ({"store": True}, "store", "true is not supported: the server keeps no responses; give store=false"),
        ({"background": True}, "background", "leave background out"),
        ({"truncation": "auto"}, "truncation", '"auto" is not supported: the server does not shorten'),
        ({"service_tier": "flex"}, "service_tier", "there is one service tier"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type", '"web_search" is not supported: a tool is a function'),
        ({"tool_choice": {"type": "mcp"}}, "tool_choice", "give auto, none, required, a function or allowed_tools"),
        ({"input": []}, "input", "at least 1 item"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0]", '"item_reference" is not supported'),
        ({"input": [{"role": "user"}]}, "input[0].content", "Field required"),
        ({"input": [{"role": "tool", "content": "x"}]}, "input[0].role", "'user', 'assistant', 'system' or"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]},
            "input[0].content[0].type",
            '"input_image" is not supported: the model reads text alone',
        ),
        ({"include": ["file_search_call.results"]}, "include[0]", "only 'message.output_text.logprobs'"),
        ({"reasoning": {"summary": "auto"}}, "reasoning.summary", "thoughts are not summarized"),
        ({"text": {"format": {"type": "grammar"}}}, "text.format", "'text', 'json_object', 'json_schema'"),
        ({"text": {"verbosity": "low"}}, "text.verbosity", "the model has one verbosity"),
        ({"prompt": {"id": "x"}}, "prompt", "the parameter prompt is not supported"),
        ({"metadata": dict.fromkeys(map(str, range(100_000)), 1)}, "metadata", "100,000 entries, and 16 are the most"),
        ({"input": [{"role": "user", "content": "x"}] * 10_001}, "input", "at most 10000 items"),
        ({"tools": [{"type": "function", "name": "x"}] * 129}, "tools", "at most 128 items"),
        ({"metadata": {"a": "b" * 513}}, "metadata.a", "at most 512 characters"),
        (
            {"stream": True, "stream_options": {"include_obfuscation": True}},
            "stream_options.include_obfuscation",
            "no obf",
        ),
    ],
)
def test_what_is_not_supported_is_refused_by_name(values: dict[str, Any], param: str, reason: str) -> None:
    with pytest.raises(ApiError) as refused:
        body(**values)
    assert refused.value.param == param
    assert reason in refused.value.message
    assert refused.value.status == 400


@pytest.mark.parametrize(
    ("values", "param", "message"),
    [
        ({"top_logprobs": 1}, "top_logprobs", "top_logprobs needs include: ['message.output_text.logprobs']; add it"),
        ({"stream_options": {}}, "stream_options", "stream_options is for a stream; give stream=true, or leave it out"),
    ],
)
def test_parameters_that_do_not_go_together_are_refused(values: dict[str, Any], param: str, message: str) -> None:
    with pytest.raises(ApiError) as refused:
        chat(**values)
    assert (refused.value.param, refused.value.message) == (param, message)


@pytest.mark.parametrize(
    ("of_chat", "own"),
    [
        ("messages[0].content", "input"),
        ("messages[1].content[0].text", "input[4]"),
        ("messages", "input"),
        ("response_format.json_schema.schema", "text.format.schema"),
        ("response_format", "text.format"),
        ("max_completion_tokens", "max_output_tokens"),
        ("tools[0].function.name", "tools[0].name"),
        ("tool_choice.allowed_tools.tools[1].function.name", "tool_choice.tools[1].name"),
        ("tool_choice", "tool_choice"),
        ("model", "model"),
    ],
)
def test_an_error_of_chat_names_the_parameter_of_the_response(of_chat: str, own: str) -> None:
    found = Turn({}, [None, 4]).error(ApiError(f"{of_chat}: wrong", param=of_chat, code="x", status=404))
    assert (found.param, found.message, found.code, found.status) == (own, f"{own}: wrong", "x", 404)


def test_a_message_comes_from_the_item_that_it_begins_with() -> None:
    items = [
        {"role": "user", "content": "x"},
        {"type": "reasoning", "summary": []},
        CALL,
        CALL,
        {"role": "user", "content": "x"},
    ]
    assert turn_of(body(input=items, instructions="x")).origins == [None, 0, 1, 4]
