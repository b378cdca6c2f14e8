"""One tool call: parsed from the JSON that a model wrote, and checked against the tool's schema.

What a model writes never raises: a call that cannot be executed becomes a ``BrokenToolCall`` with the reason, which the
model can be shown.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

OPEN, CLOSE = "<tool_call>", "</tool_call>"

PYTHON_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
    "null": (type(None),),
}
"""The Python types of each JSON schema type."""


@dataclass(frozen=True)
class ToolCall:
    """A call of a known tool, with arguments that fit its schema."""

    name: str
    arguments: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        arguments = (f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in self.arguments.items())
        return f"{self.name}({', '.join(arguments)})"


@dataclass(frozen=True)
class BrokenToolCall:
    """A call that cannot be executed: the model's text, tags included, and the reason."""

    text: str
    reason: str

    def __str__(self) -> str:
        return f"{self.text.strip()} ({self.reason})"


def parse_call(body: str, tools: Mapping[str, Mapping[str, Any]], *, closed: bool = True) -> ToolCall | BrokenToolCall:
    """Parse the text between the tags as a call of one of ``tools``.

    Args:
        body: the JSON object that the model wrote.
        tools: each tool's description (``name``, ``parameters``), by name.
        closed: the model wrote the closing tag.
    """
    text = OPEN + body + (CLOSE if closed else "")
    try:
        call = json.loads(body, strict=False)
    except (ValueError, RecursionError) as error:
        if not closed:
            return BrokenToolCall(text, "the call was cut off before its end")
        return BrokenToolCall(text, f"the call is not valid JSON: {_json_error(error)}")
    if not isinstance(call, dict) or not isinstance(call.get("name"), str):
        return BrokenToolCall(text, 'the call has no name of a tool; write {"name": ..., "arguments": {...}}')
    name, arguments = call["name"], call.get("arguments")
    if name not in tools:
        known = ", ".join(tools) or "none"
        return BrokenToolCall(text, f"there is no tool {name!r}; the tools are: {known}")
    if isinstance(arguments, str):  # JSON inside JSON, as some APIs write it
        try:
            arguments = json.loads(arguments, strict=False)
        except (ValueError, RecursionError) as error:
            return BrokenToolCall(text, f"the arguments of {name} are not valid JSON: {_json_error(error)}")
    if arguments is None:
        arguments = {}
    if not isinstance(arguments, dict):
        return BrokenToolCall(
            text, f"the arguments of {name} have the type {_type_name(arguments)}; write an object of names and values"
        )
    mismatch = _find_mismatch(name, arguments, tools[name].get("parameters") or {})
    return BrokenToolCall(text, mismatch) if mismatch else ToolCall(name, arguments)


def _find_mismatch(name: str, arguments: dict[str, Any], parameters: Mapping[str, Any]) -> str | None:
    """Describe the first argument whose name, type or enum does not fit; nested values are not checked."""
    properties = parameters.get("properties") or {}
    for argument in parameters.get("required") or ():
        if argument not in arguments:
            return f"{name} needs the argument {argument!r}"
    for argument, value in arguments.items():
        schema = properties.get(argument)
        if schema is None:
            if properties and not parameters.get("additionalProperties"):
                return f"{name} has no argument {argument!r}; its arguments are: {', '.join(properties)}"
            continue
        expected = schema.get("type", [])
        expected = [expected] if isinstance(expected, str) else expected
        if value is None and schema.get("nullable"):
            continue
        if expected and not any(_has_type(value, one) for one in expected):
            return (
                f"{name}: the argument {argument!r} has the type {_type_name(value)}, expected {' or '.join(expected)}"
            )
        if "enum" in schema and value not in schema["enum"]:
            allowed = ", ".join(json.dumps(one, ensure_ascii=False) for one in schema["enum"])
            return (
                f"{name}: the argument {argument!r} is {json.dumps(value, ensure_ascii=False)}, "
                f"expected one of: {allowed}"
            )
    return None


def _has_type(value: Any, name: str) -> bool:
    if isinstance(value, bool):  # a subclass of int in Python, but not a number in JSON
        return name == "boolean"
    return isinstance(value, PYTHON_TYPES.get(name, (object,))) or (
        name == "integer" and isinstance(value, float) and value.is_integer()
    )


def _type_name(value: Any) -> str:
    names = ("boolean", "string", "integer", "number", "array", "null")
    return next((name for name in names if _has_type(value, name)), "object")


def _json_error(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg.removesuffix(' at')} at character {error.pos}"
    return "it is nested too deeply"
