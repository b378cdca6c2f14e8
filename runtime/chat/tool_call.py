"""One tool call: parsed from the JSON that a model wrote, and checked against the tool's schema.

What a model writes never raises: a call that cannot be executed becomes a ``BrokenToolCall`` with the reason, which the
model can be shown.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ...files.json_file import parse_json
from .call_formats import HERMES, SEPARATOR, CallFormat, split_separated

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

PYTHON_NAMES = {
    "str": "string",
    "int": "integer",
    "float": "number",
    "bool": "boolean",
    "list": "array",
    "tuple": "array",
    "dict": "object",
    "None": "null",
}
"""Python's names of types, which people write in schemas; the example on the page of EXAONE 4.0 does."""


@dataclass(frozen=True)
class ToolCall:
    """A call of a known tool, with arguments that fit its schema; ``text`` is what the model wrote, tags included."""

    name: str
    arguments: dict[str, Any] = field(default_factory=dict)
    text: str = field(default="", compare=False, repr=False)

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


def parse_call(
    body: str,
    tools: Mapping[str, Mapping[str, Any]],
    *,
    format: CallFormat = HERMES,
    closed: bool = True,
) -> ToolCall | BrokenToolCall:
    """Parse the text between the tags as a call of one of ``tools``.

    Args:
        body: what the model wrote: a JSON object, or a name and the JSON of its arguments.
        tools: each tool's description (``name``, ``parameters``), by name.
        format: the tags.
        closed: the model wrote the closing tag.
    """
    text = format.opening + body + (format.closing if closed else "")
    try:
        call = _read_separated(body) if SEPARATOR in body else parse_json(body, strict=False)
    except ValueError as error:
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
            arguments = parse_json(arguments, strict=False)
        except ValueError as error:
            return BrokenToolCall(text, f"the arguments of {name} are not valid JSON: {_json_error(error)}")
    if arguments is None:
        arguments = {}
    if not isinstance(arguments, dict):
        return BrokenToolCall(
            text, f"the arguments of {name} have the type {_type_name(arguments)}; write an object of names and values"
        )
    try:
        json.dumps(arguments, allow_nan=False)
    except ValueError:  # Python reads NaN, and 1e999 as infinite
        return BrokenToolCall(text, f"the arguments of {name} have a number that JSON cannot show; write a finite one")
    mismatch = _find_mismatch(name, arguments, _mapping(tools[name].get("parameters")))
    return BrokenToolCall(text, mismatch) if mismatch else ToolCall(name, arguments, text)


def _read_separated(body: str) -> dict[str, Any]:
    name, arguments = split_separated(body)
    return {"name": name, "arguments": parse_json(arguments, strict=False) if arguments else {}}


def _find_mismatch(name: str, arguments: dict[str, Any], parameters: Mapping[str, Any]) -> str | None:
    """Describe the first argument whose name, type or enum does not fit; nested values are not checked."""
    properties = _mapping(parameters.get("properties"))
    required = parameters.get("required")
    for argument in required if isinstance(required, list | tuple) else ():
        if argument not in arguments:
            return f"{name} needs the argument {argument!r}"
    for argument, value in arguments.items():
        if argument not in properties:
            if properties and not parameters.get("additionalProperties"):
                return f"{name} has no argument {argument!r}; its arguments are: {', '.join(properties)}"
            continue
        schema = _mapping(properties[argument])  # it may also be true: any value
        given = schema.get("type", [])
        expected = [one for one in ([given] if isinstance(given, str) else given) if isinstance(one, str)]
        if value is None and schema.get("nullable"):
            continue
        if expected and not any(_has_type(value, one) for one in expected):
            return (
                f"{name}: the argument {argument!r} has the type {_type_name(value)}, expected {' or '.join(expected)}"
            )
        choices = schema.get("enum")
        if isinstance(choices, list | tuple) and value not in choices:
            allowed = ", ".join(json.dumps(one, ensure_ascii=False) for one in choices)
            return (
                f"{name}: the argument {argument!r} is {json.dumps(value, ensure_ascii=False)}, "
                f"expected one of: {allowed}"
            )
    return None


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _has_type(value: Any, name: str) -> bool:
    name = PYTHON_NAMES.get(name, name)
    if isinstance(value, bool):  # a subclass of int in Python, but not a number in JSON
        return name == "boolean" or name not in PYTHON_TYPES
    return isinstance(value, PYTHON_TYPES.get(name, (object,))) or (
        name == "integer" and isinstance(value, float) and value.is_integer()
    )


def _type_name(value: Any) -> str:
    names = ("boolean", "string", "integer", "number", "array", "null")
    return next((name for name in names if _has_type(value, name)), "object")


def _json_error(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg.removesuffix(' at')} at character {error.pos}"
    return str(error)
