"""JSON schemas of tools, given by the caller or made from a function's signature and docstring.

A function's schema equals that of ``transformers.utils.get_json_schema`` 5.23. Type hints are limited to those with one
meaning in JSON: str, int, float, bool, None, Any, list, tuple, dict, Literal, Enum, and unions of them.
"""

import inspect
import json
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Any, Literal

from ...errors import UsageError

Schema = dict[str, Any]
Tool = Mapping[str, Any] | Callable[..., Any]

SCALARS: dict[type, str] = {int: "integer", float: "number", str: "string", bool: "boolean", type(None): "null"}
CONTAINERS: dict[Any, str] = {list: "array", tuple: "array", dict: "object"}
_SUMMARY = re.compile(r"^(.*?)\s*(?:Args:|Returns:|Raises:|\Z)", re.DOTALL)
_ARGUMENTS = re.compile(r"\n\s*Args:\n(.*?)\s*(?:Returns:|Raises:|\Z)", re.DOTALL)
_ARGUMENT = re.compile(r"(?:^|\n)([ \t]*)(\w+):\s*(.*?)\s*(?=\n(?!\1[ \t])[ \t]*\w+:|\Z)", re.DOTALL)
_RETURNS = re.compile(r"\n\s*Returns:\n\s*(.*?)\s*(?:Raises:|\Z)", re.DOTALL)
_CHOICES = re.compile(r"\(choices:\s*(.*?)\)\s*$", re.IGNORECASE)


def tool_schemas(tools: Sequence[Tool]) -> list[Schema]:
    """Return the schema of each tool.

    Raises:
        UsageError: a tool is neither a schema nor a function that has one (``schema_of``).
    """
    if isinstance(tools, str | Mapping) or not isinstance(tools, Sequence):
        raise UsageError(f"tools is {type(tools).__name__}; give a list of JSON schemas or functions")
    return [dict(tool) if isinstance(tool, Mapping) else schema_of(tool) for tool in tools]


def function_of(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the object with ``name`` and ``parameters``: the schema itself, or its ``function``.

    Raises:
        UsageError: it has no name.
    """
    found = schema.get("function", schema)
    if not isinstance(found, Mapping) or not isinstance(found.get("name"), str):
        raise UsageError(
            f"a tool's schema has no name: {json.dumps(dict(schema), default=str)[:80]}; "
            'give {"type": "function", "function": {"name": ..., "description": ..., "parameters": {...}}}'
        )
    return found


def schema_of(function: Callable[..., Any]) -> Schema:
    """Return the schema of a function with type hints and a docstring in Google style.

    Raises:
        UsageError: it has no docstring, or an argument has no type hint, no description, or a type without a schema.
    """
    if not (inspect.isfunction(function) or inspect.ismethod(function)):
        raise UsageError(f"a tool is {type(function).__name__}; give a function, or a JSON schema as a dict")
    name = function.__name__
    document = (inspect.getdoc(function) or "").strip()
    descriptions = _argument_descriptions(document)
    try:
        hints = typing.get_type_hints(function)
    except (NameError, TypeError, SyntaxError) as error:
        raise UsageError(f"tool {name}: its type hints cannot be read ({error}); correct them") from None
    properties: dict[str, Schema] = {}
    required = []
    for index, (argument, parameter) in enumerate(inspect.signature(function).parameters.items()):
        untyped = parameter.annotation is inspect.Parameter.empty
        if index == 0 and untyped and argument in ("self", "cls"):
            continue
        if untyped:
            raise UsageError(f"tool {name}: argument {argument!r} has no type hint; give one, or pass a JSON schema")
        properties[argument] = _hint_schema(hints[argument], f"tool {name}: argument {argument!r}")
        description = descriptions.get(argument, "")
        if choices := _CHOICES.search(description):
            properties[argument]["enum"] = _parse_choices(choices.group(1), f"tool {name}: argument {argument!r}")
            description = description[: choices.start()].strip()
        if argument in descriptions:
            properties[argument]["description"] = description
        if parameter.default is inspect.Parameter.empty:
            required.append(argument)
    parameters: Schema = {"type": "object", "properties": properties}
    if required:
        parameters["required"] = required
    summary = _SUMMARY.search(document)
    schema: Schema = {
        "name": name,
        "description": summary.group(1).strip() if summary else "",
        "parameters": parameters,
    }
    if "return" in hints and (returned := _return_schema(hints["return"], document)) is not None:
        schema["return"] = returned
    return {"type": "function", "function": schema}


def _argument_descriptions(document: str) -> dict[str, str]:
    """Return each argument's description, joined to one line."""
    block = _ARGUMENTS.search(document)
    if block is None:
        return {}
    text = "\n".join(line for line in block.group(1).split("\n") if line.strip())
    return {found[1]: re.sub(r"\s*\n+\s*", " ", found[2].strip()) for found in _ARGUMENT.findall(text)}


def _return_schema(hint: Any, document: str) -> Schema | None:
    """Return the schema of the result, or None for a type without one: the model never writes a result."""
    try:
        schema = _hint_schema(hint, "")
    except UsageError:
        return None
    if description := _RETURNS.search(document):
        schema["description"] = description.group(1).strip()
    return schema


def _parse_choices(text: str, where: str) -> list[Any]:
    try:
        found = json.loads(text)
        return [one.strip() if isinstance(one, str) else one for one in found]
    except (ValueError, TypeError):
        raise UsageError(f'{where}: its choices are not a JSON list: {text}; write (choices: ["a", "b"])') from None


def _hint_schema(hint: Any, where: str) -> Schema:
    origin: Any = typing.get_origin(hint)
    arguments: list[Any] = list(typing.get_args(hint))
    if origin is None and isinstance(hint, type) and issubclass(hint, Enum):
        return _enum_schema([member.value for member in hint], where)
    if origin is Literal:
        return _enum_schema(list(arguments), where)
    if origin is None:
        if hint is Any:
            return {}
        if isinstance(hint, type) and (name := SCALARS.get(hint) or CONTAINERS.get(hint)):
            return {"type": name}
    elif origin is typing.Union or origin is types.UnionType:
        return _union_schema(arguments, where)
    elif origin is list:
        return {"type": "array", "items": _hint_schema(arguments[0], where)}
    elif origin is tuple and len(arguments) > 1 and ... not in arguments:
        return {"type": "array", "prefixItems": [_hint_schema(one, where) for one in arguments]}
    elif origin is dict:
        return {"type": "object", "additionalProperties": _hint_schema(arguments[1], where)}
    raise UsageError(
        f"{where}: the type {getattr(hint, '__name__', hint)!s} has no unambiguous JSON schema; "
        "use str, int, float, bool, list, tuple, dict, Literal, Enum or unions of them, or pass a JSON schema"
    )


def _union_schema(arguments: Sequence[Any], where: str) -> Schema:
    members = [_hint_schema(one, where) for one in arguments if one is not type(None)]
    if len(members) == 1:
        schema = members[0]
    elif all(set(member) == {"type"} and isinstance(member["type"], str) for member in members):
        names = sorted({member["type"] for member in members})
        schema = {"type": names[0] if len(names) == 1 else names}
    else:
        schema = {"anyOf": members}
    return {**schema, "nullable": True} if type(None) in arguments else schema


def _enum_schema(values: list[Any], where: str) -> Schema:
    if not values or any(type(value) not in SCALARS for value in values):
        raise UsageError(f"{where}: its values must be strings, numbers, true, false or null, and at least one")
    names = list(dict.fromkeys(SCALARS[type(value)] for value in values))
    return {"type": names[0] if len(names) == 1 else names, "enum": values}
