"""Grammars of tool calls, in Lark's notation as llguidance extends it, in the form that a model has learned.

<tool_call>
{"name": "weather", "arguments": {"city": "Seoul"}}
</tool_call>
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ...errors import ConstraintError
from ...files.chat.tool_schema import function_of
from ..sequence.constraint import WHITESPACE, Schema, fits_schema, in_grammar, schema_text, text_before
from ..text.tokenizer import Tokenizer
from .call_formats import DEEPSEEK, FENCE, HERMES, SEPARATOR, WRAPPERS, CallFormat
from .tool_call import ToolCall

_HERMES_START = r'\s*\{"name": "(?P<hermes>[^"]*)", "arguments": '
_DEEPSEEK_START = rf"\s*function{SEPARATOR}(?P<deepseek>[^\n]*)\n{FENCE}json\n"
_START = re.compile(rf"{HERMES.opening}{_HERMES_START}|{DEEPSEEK.opening}{_DEEPSEEK_START}")


def call_grammar(
    tools: Sequence[Mapping[str, Any]],
    tokenizer: Tokenizer,
    *,
    format: CallFormat = HERMES,
    forced: bool,
    several: bool = True,
    answer: Schema | None = None,
) -> str:
    """Return the grammar of a turn's text whose calls are complete and fit the schemas.

    Args:
        tools: the tools that may be called, as JSON schemas; at least one.
        format: HERMES or DEEPSEEK.
        forced: the text is nothing but calls, at least one. Otherwise other text may come before and after them.
        several: there may be more than one call.
        answer: a JSON schema that the text must fit where there is no call; no other text comes with the calls then.

    Raises:
        ConstraintError: a schema is not one, or a very large one.
    """
    shown = {tag: in_grammar(tokenizer, tag) for tag in (format.opening, format.closing, SEPARATOR, *WRAPPERS)}
    rules = [
        f"body: {' | '.join(f'tool_{index}' for index in range(len(tools)))}",
        f"rest: nl body nl {shown[format.closing]}",
        f"call: {shown[format.opening]} rest",
        r'nl: "\n"?',
    ]
    for index, tool in enumerate(tools):
        function = function_of(tool)
        before, after = _around(format, function["name"], shown[SEPARATOR])
        schema = _arguments_schema(function.get("parameters"))
        rules += [f"tool_{index}: {before} arguments_{index} {after}", f"arguments_{index}: %json {schema}"]
    calls = "call (nl call)*" if several else "call"
    trigger, said = format.opening, "rest"
    if format is DEEPSEEK:
        trigger, said = WRAPPERS[0], f"{calls} {shown[WRAPPERS[1]]}"
        calls = f"{shown[trigger]} {said}"
    if forced:
        return "\n".join([f"start: {calls}", *rules])
    if answer is not None:
        return "\n".join([f"start: {calls} | answer", f"answer: %json {_schema(answer)}", *rules])
    rules += [*text_before("before", tokenizer, trigger), f"said: before {said}", r"SAID: /(.|\n)*/"]
    return "\n".join(["start: said* SAID" if several else "start: said | SAID", *rules])


def format_of(template: str) -> CallFormat:
    """Return the form of calls in a chat template."""
    return DEEPSEEK if DEEPSEEK.opening in template and HERMES.opening not in template else HERMES


def arguments_start(text: str) -> tuple[str, int] | None:
    """Return the name of the tool in a call of this grammar and where its arguments begin; None before they do."""
    found = _START.match(text)
    return None if found is None else (found["hermes"] or found["deepseek"], found.end())


def call_fits(call: ToolCall, parameters: Any) -> bool:
    """Return True where the arguments of a call fit the tool's ``parameters`` as they would under its grammar."""
    schema = json.loads(_arguments_schema(parameters))
    named = [name for name in schema.get("properties", {}) if name in call.arguments]
    ordered = {name: call.arguments[name] for name in dict.fromkeys([*named, *call.arguments])}
    try:
        return fits_schema(schema, ordered)
    except ConstraintError:
        return False


def _around(format: CallFormat, name: str, separator: str) -> tuple[str, str]:
    """Return what comes before and after the arguments in a call, in Lark's notation."""
    if format is DEEPSEEK:
        head, tail = name + "\n" + FENCE + "json\n", "\n" + FENCE
        return f'"function" {separator} {_json(head)}', _json(tail)
    return _json(f'{{"name": {_json(name)}, "arguments": '), '"}"'


def _arguments_schema(parameters: Any) -> str:
    """Return the schema of a call's arguments: of the names that it lists, unless it says that there may be others."""
    schema = (
        dict(parameters) if isinstance(parameters, Mapping) and parameters else {"type": "object", "properties": {}}
    )
    if "properties" in schema:
        schema.setdefault("additionalProperties", False)
    return _schema(schema)


def _schema(value: Schema) -> str:
    """Return a schema as JSON, with the white space of JSON as ``constraint`` bounds it."""
    return _json({"x-guidance": {"whitespace_pattern": WHITESPACE}, **json.loads(schema_text(value))})


def _json(text: Any) -> str:
    return json.dumps(text, ensure_ascii=False)
