"""Messages and tools: OpenAI's form to what templates read, and errors that name the parameter."""

from typing import Any

import pytest
from intaglio.serving.errors import ApiError
from intaglio.serving.forms import checked
from intaglio.serving.protocol.chat.body import ChatBody
from intaglio.serving.protocol.chat.messages import template_messages
from intaglio.serving.protocol.chat.tools import calling

USER = {"role": "user", "content": "hi"}
CLOCK = {"type": "function", "function": {"name": "clock"}}
SUN = {"type": "function", "function": {"name": "sun", "strict": True, "parameters": {"type": "object"}}}


def call(id: str, name: str = "clock", arguments: str = "{}") -> dict[str, Any]:
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def calls(*made: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": None, "tool_calls": list(made), **more}


def result(id: str, content: str = "12:00") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": id, "content": content}


def read(*messages: Any) -> list[dict[str, Any]]:
    return template_messages(checked(ChatBody, {"messages": list(messages)}).messages)


def test_roles_and_contents() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert read({"role": "developer", "content": "Be brief."}, USER | {"content": parts[:1]}) == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "a"},
    ]
    assert read(USER | {"content": parts, "name": "Ada"}) == [{"role": "user", "name": "Ada", "content": parts}]
    refusal = {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]}
    assert read(refusal, {"role": "assistant", "content": None, "refusal": "no"}) == [
        {"role": "assistant", "content": "no"},
        {"role": "assistant", "content": "no"},
    ]


def test_what_clients_send_back_of_an_answer() -> None:
    """The openai client dumps a message with its empty fields."""
    empty: dict[str, Any] = {
        "refusal": None,
        "annotations": [],
        "audio": None,
        "function_call": None,
        "tool_calls": None,
    }
    answer = {"role": "assistant", "content": "hello", "reasoning_content": "so", **empty}
    assert read(USER, answer)[1] == {"role": "assistant", "content": "hello", "reasoning_content": "so"}
    assert read({"role": "assistant", "content": "x", "reasoning": "so"})[0]["reasoning_content"] == "so"


def test_calls_and_their_results() -> None:
    """Arguments are objects, and results are in the order of the calls, with the names of their tools."""
    asked = calls(call("a", "weather", '{"city": "서울"}'), call("b"), call("c", arguments="not JSON"))
    found = read(USER, asked, result("b"), result("a", "rain"), result("c"), USER)
    assert [one["function"]["arguments"] for one in found[1]["tool_calls"]] == [{"city": "서울"}, {}, "not JSON"]
    assert found[1]["content"] is None
    assert [(one["name"], one["content"], one["tool_call_id"]) for one in found[2:5]] == [
        ("weather", "rain", "a"),
        ("clock", "12:00", "b"),
        ("clock", "12:00", "c"),
    ]
    assert found[5] == USER


@pytest.mark.parametrize(
    ("messages", "param", "reason"),
    [
        ([], "messages", "at least 1 item"),
        ([USER | {"role": "king"}], "messages[0].role", "should be 'developer', 'system', 'user'"),
        ([{"role": "user"}], "messages[0].content", "a message of role 'user' needs content"),
        ([USER | {"content": []}], "messages[0].content", "the list of parts is empty"),
        (
            [USER | {"content": [{"type": "image_url", "image_url": {"url": "http://x"}}]}],
            "messages[0].content[0]",
            "the model reads text, not images",
        ),
        ([USER | {"content": [{"type": "input_audio", "input_audio": {}}]}], "messages[0].content[0]", "not audio"),
        ([USER | {"content": [{"type": "file", "file": {}}]}], "messages[0].content[0]", "not files"),
        (
            [USER | {"content": [{"type": "refusal", "refusal": "x"}]}],
            "messages[0].content[0].type",
            "type 'refusal' is not supported here",
        ),
        ([USER | {"content": [{"type": "text"}]}], "messages[0].content[0].text", "a part has no text"),
        ([{"role": "function", "name": "f", "content": "x"}], "messages[0].role", "give role 'tool' and tool_call_id"),
        (
            [USER | {"tool_call_id": "a"}],
            "messages[0].tool_call_id",
            "only messages of role 'tool' have a tool_call_id",
        ),
        ([USER | {"reasoning_content": "a"}], "messages[0].reasoning_content", "only messages of role 'assistant'"),
        ([{"role": "assistant"}], "messages[0].content", "needs content or tool_calls"),
        ([USER | {"cache": 1}], "messages[0].cache", "the parameter messages[0].cache is not supported"),
        (
            [USER, {"role": "tool", "content": "x"}],
            "messages[1].tool_call_id",
            "needs the tool_call_id of the call it answers",
        ),
        (
            [USER, result("a")],
            "messages[1].tool_call_id",
            "there is no call 'a' before it; it must follow an assistant's",
        ),
        (
            [calls(call("a")), result("b")],
            "messages[1].tool_call_id",
            "there is no call 'b' before it; the calls are: a",
        ),
        ([calls(call("a")), USER, result("a")], "messages[2].tool_call_id", "there is no call 'a' before it"),
        ([calls(call("a")), result("a"), result("a")], "messages[2].tool_call_id", "has a result already"),
        ([calls({"id": "a", "type": "custom"})], "messages[0].tool_calls[0].type", "should be 'function'"),
    ],
)
def test_messages_that_no_model_reads(messages: list[Any], param: str, reason: str) -> None:
    with pytest.raises(ApiError) as refused:
        read(*messages)
    assert refused.value.param == param
    assert reason in refused.value.message


def chosen(choice: Any, tools: list[Any] | None = None) -> Any:
    given = {"messages": [USER], "tools": [CLOCK, SUN] if tools is None else tools, "tool_choice": choice}
    body = checked(ChatBody, given)
    found = calling(body.tools, body.tool_choice)
    return [one["function"]["name"] for one in found.tools], found.choice, found.strict


def test_what_the_model_may_call() -> None:
    named = {"type": "function", "function": {"name": "clock"}}
    allowed = {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [named]}}
    assert chosen(None) == (["clock", "sun"], "auto", True)
    assert chosen("auto", [CLOCK]) == (["clock"], "auto", False)
    assert chosen("none") == ([], "auto", False)
    assert chosen("required") == (["clock", "sun"], "required", True)
    assert chosen(named) == (["clock", "sun"], "clock", True)
    assert chosen(allowed) == (["clock"], "required", False)
    assert chosen("none", []) == ([], "auto", False)


@pytest.mark.parametrize(
    ("choice", "tools", "param", "reason"),
    [
        ("required", [], "tool_choice", "there are no tools to choose from"),
        ("sometimes", None, "tool_choice", "should be 'none', 'auto' or 'required', or: Input should be an object"),
        (
            {"type": "function", "function": {"name": "moon"}},
            None,
            "tool_choice.function.name",
            "there is no tool 'moon'; the tools are: clock, sun",
        ),
        (None, [CLOCK, CLOCK], "tools[1].function.name", "there are two tools 'clock'"),
        (
            None,
            [{"type": "function", "function": {"name": "auto"}}],
            "tools[0].function.name",
            "'auto' is a tool_choice",
        ),
        (None, [{"type": "function", "function": {"name": "a b"}}], "tools[0].function.name", "should match pattern"),
        (None, [{"type": "custom", "custom": {"name": "a"}}], "tools[0].type", "should be 'function'"),
        (
            None,
            [{"type": "function", "function": {"name": "a", "parameters": []}}],
            "tools[0].function.parameters",
            "an object",
        ),
        (
            {
                "type": "allowed_tools",
                "allowed_tools": {"mode": "auto", "tools": [{"type": "function", "function": {"name": "moon"}}]},
            },
            None,
            "tool_choice.allowed_tools.tools[0].function.name",
            "there is no tool 'moon'",
        ),
    ],
)
def test_choices_that_cannot_be_had(choice: Any, tools: list[Any] | None, param: str, reason: str) -> None:
    with pytest.raises(ApiError) as refused:
        chosen(choice, tools)
    assert refused.value.param == param
    assert reason in refused.value.message
