"""Tools as JSON schemas: given so, or made from a function's signature and docstring.

The schema of a function is that of ``transformers.utils.get_json_schema`` 5.23, for the type hints that have one plain
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
    """Each tool as a schema, as templates want them.

    Raises:
        UsageError: something that is neither a schema nor a function that can be described.
    """
    if isinstance(tools, str | Mapping) or not isinstance(tools, Sequence):
        raise UsageError(f"tools must be a list of schemas or functions, not {type(tools).__name__}")
    return [dict(tool) if isinstance(tool, Mapping) else schema_of(tool) for tool in tools]


def function_of(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part with ``name`` and ``parameters``, which may stand by itself or under ``function``.

    Raises:
        UsageError: there is no name.
    """
    found = schema.get("function", schema)
    if not isinstance(found, Mapping) or not isinstance(found.get("name"), str):
        raise UsageError(
            f"a tool's schema has no name: {json.dumps(dict(schema), default=str)[:80]}; "
            'give {"type": "function", "function": {"name": ..., "description": ..., "parameters": {...}}}'
        )
    return found


def schema_of(function: Callable[..., Any]) -> Schema:
    """The schema of a function with type hints and a docstring in Google's style.

    Raises:
        UsageError: no docstring, an argument without a type hint or a description, or a type that JSON does not have.
    """
    if not (inspect.isfunction(function) or inspect.ismethod(function)):
        raise UsageError(f"a tool is {type(function).__name__}; give a function, or a JSON schema as a dict")
    name = function.__name__
    document = (inspect.getdoc(function) or "").strip()
    if not document:
        raise UsageError(f"tool {name} has no docstring; say what it does, and each argument under 'Args:'")
    told = _described(document)
    hints = typing.get_type_hints(function)
    properties: dict[str, Schema] = {}
    required = []
    for index, (argument, parameter) in enumerate(inspect.signature(function).parameters.items()):
        bare = parameter.annotation is inspect.Parameter.empty
        if index == 0 and bare and argument in ("self", "cls"):
            continue
        if bare:
            raise UsageError(f"tool {name}: argument {argument!r} has no type hint; give one, or pass a JSON schema")
        if argument not in told:
            raise UsageError(f"tool {name}: argument {argument!r} is not described; add it under 'Args:'")
        properties[argument] = _of_hint(hints[argument], f"tool {name}: argument {argument!r}")
        description = told[argument]
        if choices := _CHOICES.search(description):
            properties[argument]["enum"] = _choices(choices.group(1), f"tool {name}: argument {argument!r}")
            description = description[: choices.start()].strip()
        properties[argument]["description"] = description
        if parameter.default is inspect.Parameter.empty:
            required.append(argument)
    parameters: Schema = {"type": "object", "properties": properties}
    if required:
        parameters["required"] = required
    summary = _SUMMARY.search(document)
    described: Schema = {
        "name": name,
        "description": summary.group(1).strip() if summary else "",
        "parameters": parameters,
    }
    if "return" in hints and (returned := _returned(hints["return"], document)) is not None:
        described["return"] = returned
    return {"type": "function", "function": described}


def _described(document: str) -> dict[str, str]:
    """Each argument's description, on one line."""
    block = _ARGUMENTS.search(document)
    if block is None:
        return {}
    text = "\n".join(line for line in block.group(1).split("\n") if line.strip())
    return {found[1]: re.sub(r"\s*\n+\s*", " ", found[2].strip()) for found in _ARGUMENT.findall(text)}


def _returned(hint: Any, document: str) -> Schema | None:
    """The model never writes a result, so a type that has no schema is left out."""
    try:
        schema = _of_hint(hint, "")
    except UsageError:
        return None
    if told := _RETURNS.search(document):
        schema["description"] = told.group(1).strip()
    return schema


def _choices(text: str, where: str) -> list[Any]:
    try:
        found = json.loads(text)
        return [one.strip() if isinstance(one, str) else one for one in found]
    except (ValueError, TypeError):
        raise UsageError(f"{where}: its choices are no JSON list: {text}") from None


def _of_hint(hint: Any, where: str) -> Schema:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is None and isinstance(hint, type) and issubclass(hint, Enum):
        return _of_values([member.value for member in hint], where)
    if origin is Literal:
        return _of_values(list(arguments), where)
    if origin is None:
        if hint is Any:
            return {}
        if isinstance(hint, type) and (kind := SCALARS.get(hint) or CONTAINERS.get(hint)):
            return {"type": kind}
    elif origin is typing.Union or origin is types.UnionType:
        return _of_union(arguments, where)
    elif origin is list:
        return {"type": "array", "items": _of_hint(arguments[0], where)}
    elif origin is tuple and len(arguments) > 1 and ... not in arguments:
        return {"type": "array", "prefixItems": [_of_hint(one, where) for one in arguments]}
    elif origin is dict:
        return {"type": "object", "additionalProperties": _of_hint(arguments[1], where)}
    raise UsageError(
        f"{where}: the type {getattr(hint, '__name__', hint)!s} has no JSON schema that is certain; "
        "take str, int, float, bool, list, tuple, dict, Literal, Enum or unions of them, or pass a JSON schema"
    )


def _of_union(arguments: tuple[Any, ...], where: str) -> Schema:
    kinds = [_of_hint(one, where) for one in arguments if one is not type(None)]
    if len(kinds) == 1:
        schema = kinds[0]
    elif all(set(kind) == {"type"} and isinstance(kind["type"], str) for kind in kinds):
        names = sorted({kind["type"] for kind in kinds})
        schema = {"type": names[0] if len(names) == 1 else names}
    else:
        schema = {"anyOf": kinds}
    return {**schema, "nullable": True} if type(None) in arguments else schema


def _of_values(values: list[Any], where: str) -> Schema:
    if not values or any(type(value) not in SCALARS for value in values):
        raise UsageError(f"{where}: its values must be text, numbers, true, false or null, at least one")
    kinds = list(dict.fromkeys(SCALARS[type(value)] for value in values))
    return {"type": kinds[0] if len(kinds) == 1 else kinds, "enum": values}
