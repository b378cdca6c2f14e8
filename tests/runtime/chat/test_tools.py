"""Tool calls in a model's text are parsed, or reported as broken with a reason; none raises an exception."""

from typing import Any

import pytest
from intaglio.errors import UsageError
from intaglio.runtime.chat.tool_call import BrokenToolCall, ToolCall
from intaglio.runtime.chat.tool_calls import TextOrCall, ToolCallParser

SCHEMAS: list[dict[str, Any]] = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string"},
                    "days": {"type": "integer"},
                    "unit": {"type": "string", "enum": ["C", "도"]},
                    "where": {"type": ["number", "array"], "nullable": True},
                    "odd": {},
                },
                "required": ["city"],
            },
        },
    },
    {"name": "clock", "parameters": {"type": "object", "properties": {}}},
    {"name": "any", "parameters": {"properties": {"a": {"type": "number"}}, "additionalProperties": True}},
]
SEOUL = ToolCall("weather", {"city": "서울"})


def call(body: str) -> str:
    return f"<tool_call>{body}</tool_call>"


GOOD: dict[str, tuple[str, list[TextOrCall]]] = {
    "Qwen2's form": ('<tool_call>\n{"name": "weather", "arguments": {"city": "서울"}}\n</tool_call>', [SEOUL]),
    "EXAONE's form": (call('{"name": "weather", "arguments": {"city": "서울"}}'), [SEOUL]),
    "text before it": ("Let me see.\n" + call('{"name": "clock"}'), ["Let me see.\n", ToolCall("clock")]),
    "text behind it": (call('{"name": "clock"}') + "\nDone.", [ToolCall("clock"), "Done."]),
    "several calls": (
        call('{"name": "clock"}') + "\n" + call('{"arguments": {"city": "서울"}, "name": "weather"}') + "\n",
        [ToolCall("clock"), SEOUL],
    ),
    "no arguments": (call('{"name": "clock", "arguments": null}'), [ToolCall("clock")]),
    "arguments as JSON text": (call('{"name": "weather", "arguments": "{\\"city\\": \\"서울\\"}"}'), [SEOUL]),
    "a tag in an argument": (
        call('{"name": "weather", "arguments": {"city": "a </tool_call> b \\" <tool_call>"}}'),
        [ToolCall("weather", {"city": 'a </tool_call> b " <tool_call>'})],
    ),
    "a line break in an argument": (
        call('{"name": "weather", "arguments": {"city": "a\nb"}}'),
        [ToolCall("weather", {"city": "a\nb"})],
    ),
    "every kind": (
        call('{"name": "weather", "arguments": {"city": "", "days": 2.0, "unit": "도", "where": null, "odd": [{}]}}'),
        [ToolCall("weather", {"city": "", "days": 2.0, "unit": "도", "where": None, "odd": [{}]})],
    ),
    "one of several kinds": (
        call('{"name": "weather", "arguments": {"city": "", "where": [1]}}'),
        [ToolCall("weather", {"city": "", "where": [1]})],
    ),
    "more arguments, where the tool takes any": (
        call('{"name": "any", "arguments": {"b": true}}'),
        [ToolCall("any", {"b": True})],
    ),
    "whole, but never closed": ('<tool_call>\n{"name": "clock"}', [ToolCall("clock")]),
    "closed by the next": ('<tool_call>{"name": "clock"}\n' + call('{"name": "clock"}'), [ToolCall("clock")] * 2),
    "without tags": ('{"name": "weather", "arguments": {"city": "서울"}}', [SEOUL]),
    "without tags, in a fence": (
        '\n```json\n{\n  "name": "weather",\n  "arguments": {\n    "city": "서울"\n  }\n}\n```\n',
        [SEOUL],
    ),
    "without tags, in a plain fence, with text behind it": (
        '```\n{"name": "clock"}\n``` so be it',
        [ToolCall("clock"), "so be it"],
    ),
    "several without tags": ('{"name": "clock"}\n{"arguments": {}, "name": "clock"}', [ToolCall("clock")] * 2),
    "with tags, then without": (call('{"name": "clock"}') + '\n{"name": "clock"}', [ToolCall("clock")] * 2),
    "braces in an argument": (
        '{"name": "weather", "arguments": {"city": "}\\"{["}}x',
        [ToolCall("weather", {"city": '}"{['}), "x"],
    ),
    "JSON that is not a call": ('{"name": "Ada", "arguments": {}}', ['{"name": "Ada", "arguments": {}}']),
    "JSON with more than a call": (
        '{"name": "clock", "hands": 2} and a tag ' + call('{"name": "clock"}'),
        ['{"name": "clock", "hands": 2} and a tag ', ToolCall("clock")],
    ),
    "invalid JSON": ('{"name": clock}', ['{"name": clock}']),
    "JSON that is cut off": ('```json\n{"name": "clock", "arg', ['```json\n{"name": "clock", "arg']),
    "another fence": ('```python\nprint("{")\n```', ['```python\nprint("{")\n```']),
    "JSON within the answer": ('See: {"name": "clock"}', ['See: {"name": "clock"}']),
    "no call": ("a <tool> b <tool_cal", ["a <tool> b <tool_cal"]),
}
BROKEN: dict[str, tuple[str, str]] = {
    "cut off": ('<tool_call>\n{"name": "weather", "arguments": {"ci', "the call was cut off before its end"),
    "cut off at once": ("<tool_call>", "the call was cut off before its end"),
    "no JSON": (call("weather(city=서울)"), "the call is not valid JSON: Expecting value at character 0"),
    "arguments that are not JSON": (
        call('{"name": "weather", "arguments": {city: 서울}}'),
        "the call is not valid JSON: Expecting property name enclosed in double quotes at character 34",
    ),
    "argument text that is not JSON": (
        call('{"name": "weather", "arguments": "city"}'),
        "the arguments of weather are not valid JSON: Expecting value at character 0",
    ),
    "a string that never ends": (
        call('{"name": "clock'),
        "the call is not valid JSON: Unterminated string starting at character 9",
    ),
    "too deep": (call("[" * 100_000), "the call is not valid JSON: it is nested too deeply"),
    "no name": (call('{"arguments": {}}'), 'the call has no name of a tool; write {"name": ..., "arguments": {...}}'),
    "a list": (call("[]"), 'the call has no name of a tool; write {"name": ..., "arguments": {...}}'),
    "an unknown tool": (
        call('{"name": "wether", "arguments": {}}'),
        "there is no tool 'wether'; the tools are: weather, clock, any",
    ),
    "arguments that are a list": (
        call('{"name": "clock", "arguments": [1]}'),
        "the arguments of clock have the type array; write an object of names and values",
    ),
    "a missing argument": (call('{"name": "weather", "arguments": {"days": 1}}'), "weather needs the argument 'city'"),
    "a surplus argument": (
        call('{"name": "weather", "arguments": {"city": "", "town": ""}}'),
        "weather has no argument 'town'; its arguments are: city, days, unit, where, odd",
    ),
    "another kind": (
        call('{"name": "weather", "arguments": {"city": "", "days": "2"}}'),
        "weather: the argument 'days' has the type string, expected integer",
    ),
    "a truth for a number": (
        call('{"name": "weather", "arguments": {"city": "", "where": true}}'),
        "weather: the argument 'where' has the type boolean, expected number or array",
    ),
    "no choice": (
        call('{"name": "weather", "arguments": {"city": "", "unit": "섭씨"}}'),
        'weather: the argument \'unit\' is "섭씨", expected one of: "C", "도"',
    ),
}


def parse(pieces: list[str]) -> list[TextOrCall]:
    """Parse the chunks; join adjacent text in the result."""
    calls = ToolCallParser(SCHEMAS)
    joined: list[TextOrCall] = []
    for found in [one for piece in pieces for one in calls.push(piece)] + calls.flush():
        if isinstance(found, str) and joined and isinstance(joined[-1], str):
            joined[-1] += found
        else:
            joined.append(found)
    return joined


@pytest.mark.parametrize("case", GOOD)
def test_chunk_boundaries_do_not_change_the_calls(case: str) -> None:
    text, expected = GOOD[case]
    assert parse([text]) == expected
    assert parse(list(text)) == expected
    for at in range(len(text)):
        assert parse([text[:at], text[at:]]) == expected


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_call_gives_the_reason(case: str) -> None:
    text, reason = BROKEN[case]
    assert parse([text]) == [BrokenToolCall(text, reason)]
    if len(text) < 1000:
        assert parse(list(text)) == [BrokenToolCall(text, reason)]


def test_a_broken_call_without_tags() -> None:
    text = '{"name": "weather", "arguments": {"town": "서울"}}'
    assert parse(list(f"```json\n{text}\n```")) == [BrokenToolCall(text, "weather needs the argument 'city'")]


def test_a_broken_call_does_not_hide_the_next() -> None:
    found = parse([call("x") + call('{"name": "clock"}') + "end"])
    assert [type(one) for one in found] == [BrokenToolCall, ToolCall, str]


def test_an_answer_that_begins_with_other_json_is_passed_on_at_once() -> None:
    calls = ToolCallParser(SCHEMAS)
    assert calls.push('```json\n{"na') == []
    assert calls.push("tion") == ['```json\n{"nation']
    spaced = ToolCallParser(SCHEMAS)
    assert spaced.push("\n" * 300 + "{" + " " * 300) == []
    assert spaced.push("x") == ["\n" * 300 + "{" + " " * 300 + "x"]


def test_text_is_passed_on_at_once() -> None:
    calls = ToolCallParser(SCHEMAS)
    assert calls.push("I look <") == ["I look "]
    assert calls.push("b> it up <tool") == ["<b> it up "]
    assert calls.push('_call>{"name"') == []
    assert calls.push(': "clock"}</tool_call') == []
    assert calls.push(">") == [ToolCall("clock")]


@pytest.mark.parametrize("form", [call("{}"), "{}"])
def test_a_long_call_takes_linear_time(form: str) -> None:
    """Push 60,000 characters one at a time; quadratic time would take minutes."""
    text = form.replace("{}", '{"name": "weather", "arguments": {"city": "' + "x" * 60_000 + '"}}')
    assert parse(list(text)) == [ToolCall("weather", {"city": "x" * 60_000})]


def test_calls_print_as_python_calls() -> None:
    assert str(ToolCall("weather", {"city": "서울", "days": 2})) == 'weather(city="서울", days=2)'
    assert str(BrokenToolCall("<tool_call>x</tool_call>\n", "why")) == "<tool_call>x</tool_call> (why)"


def test_a_schema_without_a_name() -> None:
    with pytest.raises(UsageError, match=r'a tool\'s schema has no name: \{"type": "function"\}; give \{"type"'):
        ToolCallParser([{"type": "function"}])
