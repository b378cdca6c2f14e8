"""Tool calls in a model's text are parsed, or reported as broken with a reason; none raises an exception."""

from random import Random
from typing import Any

import pytest
from intaglio.errors import UsageError
from intaglio.files.chat.template import read_chat_format
from intaglio.runtime import Generation
from intaglio.runtime.chat.chat import ChatParser, ChatStream, finish
from intaglio.runtime.chat.tool_call import BrokenToolCall, ToolCall
from intaglio.runtime.chat.tool_calls import TextOrCall, ToolCallParser
from intaglio.runtime.chat.tool_loop import execute_calls
from intaglio.runtime.sequence.stream import TextStream
from intaglio.tests.runtime.generation.scripted import CHECKPOINTS

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
    "too deep": (call("[" * 100_000), "the call is not valid JSON: it is nested deeper than 100 levels"),
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


DEEPSEEK = "<｜tool▁call▁begin｜>function<｜tool▁sep｜>{}\n```json\n{}\n```<｜tool▁call▁end｜>"
BEGIN, END = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"
OF_RELATIVES: dict[str, tuple[str, list[TextOrCall]]] = {
    "DeepSeek-R1": (
        f"I look.\n{BEGIN}{DEEPSEEK.format('clock', '{}')}\n"
        + DEEPSEEK.format("weather", '{"city": "서울"}')
        + f"{END}\n",
        ["I look.\n", ToolCall("clock"), SEOUL],
    ),
    "DeepSeek-V3.1": (
        f'{BEGIN}<｜tool▁call▁begin｜>weather<｜tool▁sep｜>{{"city": "서울"}}<｜tool▁call▁end｜>{END}',
        [SEOUL],
    ),
    "DeepSeek, cut off": (
        BEGIN + '<｜tool▁call▁begin｜>function<｜tool▁sep｜>weather\n```json\n{"city": "',
        [
            BrokenToolCall(
                '<｜tool▁call▁begin｜>function<｜tool▁sep｜>weather\n```json\n{"city": "',
                "the call was cut off before its end",
            )
        ],
    ),
    "DeepSeek, not closed": (
        '<｜tool▁call▁begin｜>weather<｜tool▁sep｜>{"city": "서울"}' + END + "x",
        [SEOUL, "x"],
    ),
    "Qwen2.5-Coder": ('<tools>\n{"name": "weather", "arguments": {"city": "서울"}}\n</tools>', [SEOUL]),
    "Qwen2.5-Coder, two in one": ('<tools>\n{"name": "clock"}\n{"name": "clock"}\n</tools>', [ToolCall("clock")] * 2),
    "two in one of Qwen2.5": (
        '<tool_call>{"name": "clock"} {"name": "clock"}</tool_call>.',
        [*[ToolCall("clock")] * 2, "."],
    ),
    "tools as text": ("Put it in <tools> and </tools>.", ["Put it in <tools> and </tools>."]),
    "a list of tools": (
        '<tools>{"type": "function"}</tools> is how',
        ['<tools>{"type": "function"}</tools> is how'],
    ),
    "an unknown tool as text": ('<tools> {"name": "x"}', ['<tools> {"name": "x"}']),
}


@pytest.mark.parametrize("case", OF_RELATIVES)
def test_the_forms_of_relatives(case: str) -> None:
    text, expected = OF_RELATIVES[case]
    assert parse([text]) == expected
    assert parse(list(text)) == expected


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


NAMES = ['"weather"', '"clock"', '"any"', '"x"', '["f"]', "{}", "null", "7", "true", '"\\ud800"', '{"name": "clock"}']
VALUES = [
    "{}", "[]", "null", "true", "NaN", "-Infinity", "1e999", "1" * 5000, "7", '"text"', '"{\\"city\\": 1}"',
    '"\\ud83d"',
    '{"city": "서울"}', '{"city": ["a"], "days": {}}', '{"city": "a", "city": "b"}', "[" * 99 + "]" * 99, "{" * 500,
    '{"a": ' * 300 + "1" + "}" * 300, '{"city": "", "unit": ["C"]}', '{"city": "", "where": NaN, "odd": {"": [[{}]]}}',
    '{"day\\u0000": "\\u0000"}', "'single'", '{"true": true', '{"loose": 1, "exact": {"a": 1}, "typed": [2]}',
]  # fmt: skip
PIECES = [
    "<tool_call>", "</tool_call>", "<tools>", "</tools>", BEGIN, END, "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>",
    "<｜tool▁sep｜>", "function", "clock", "```json\n", "```", "\n", " ", "{", "}", '"', "\\", "<", "<tool", "<｜",
    "답", "\x00",
    "<think>", "</think>", "\ufffd", "[", "]", ",",
]  # fmt: skip
LOOSE: list[dict[str, Any]] = [
    {"name": "x", "parameters": {"properties": {"loose": True, "exact": {"enum": 7}, "typed": {"type": [{}, "null"]}}}},
    {"name": "f", "parameters": None},
    {"name": "g", "parameters": {"properties": [], "required": True}},
]


def random_output(random: Random) -> str:
    """Return what a confused model may write: pieces of calls in any order."""
    parts = []
    for _ in range(random.randint(1, 7)):
        if random.random() < 0.5:
            parts.append(random.choice(PIECES))
            continue
        name, value = random.choice(NAMES), random.choice(VALUES)
        body = f'{{"name": {name}, "arguments": {value}}}'
        parts.append(
            random.choice(
                [
                    body,
                    call(body),
                    f"<tools>{body}</tools>",
                    DEEPSEEK.format(name.strip('"'), value),
                    f'{{"arguments": {value}}}',
                ]
            )
        )
    return "".join(parts)


def test_no_output_of_a_model_raises() -> None:
    """2,000 random outputs are parsed, printed, executed, and read by both templates in the next turn."""
    formats = [read_chat_format(CHECKPOINTS / family) for family in ("tiny-qwen2", "tiny-exaone4")]
    random = Random(15)
    counts = {"text": 0, "call": 0, "broken": 0}
    for index in range(2000):
        text = random_output(random)
        cut = random.randint(0, len(text))
        stream = ChatStream(
            TextStream((chunk for chunk in (text[:cut], text[cut:])), lambda: Generation("", (1,), (1,), "eos")),
            ChatParser(opened=index % 3 == 0, schemas=[*SCHEMAS, *LOOSE]),
        )
        reply = finish(stream, lambda event: str(event.call))
        counts["text"] += bool(reply.text)
        counts["call"] += bool(reply.tool_calls)
        counts["broken"] += bool(reply.broken_calls)
        results = execute_calls(reply, dict.fromkeys((call.name for call in reply.tool_calls), dict))
        if index % 10 == 0:
            history = [{"role": "user", "content": "hi"}, reply.message, *(result.message for result in results)]
            for chat_format in formats:
                assert chat_format.render(history).encode()
    assert min(counts.values()) > 100, counts


def test_a_name_that_is_a_list_is_text() -> None:
    assert parse(['{"name": ["f"], "arguments": {}}']) == ['{"name": ["f"], "arguments": {}}']


def test_calls_print_as_python_calls() -> None:
    assert str(ToolCall("weather", {"city": "서울", "days": 2})) == 'weather(city="서울", days=2)'
    assert str(BrokenToolCall("<tool_call>x</tool_call>\n", "why")) == "<tool_call>x</tool_call> (why)"


def test_a_schema_without_a_name() -> None:
    with pytest.raises(UsageError, match=r'a tool\'s schema has no name: \{"type": "function"\}; give \{"type"'):
        ToolCallParser([{"type": "function"}])
