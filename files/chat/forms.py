"""The forms in which a message can say the same: templates differ in the ones that they can show.

    content of parts    [{"type": "text", "text": "hi"}]   or its text
    a tool's result     {"sky": "rain"}                    or its JSON
    a call's arguments  {"city": "Seoul"}                  or their JSON
    calls without text  "content": null                    or "content": ""

A template that cannot show one form fails, or shows it as Python or with escaped quotes. The messages are rendered as
they are given, as transformers renders them; where that does not work, in the first other form that does.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product
from typing import Any, TypeGuard

from ..json_file import parse_json

Plain = dict[str, Any]
Form = Callable[[Any], Any]

TOOL_ROLES = ("tool", "function", "ipython")
"""Roles of messages whose content is a tool's result."""


def text_of_parts(content: Any) -> str:
    """Return a message's text; parts are lines of it."""
    if isinstance(content, list):
        return "\n".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def is_parts(content: Any) -> TypeGuard[list[dict[str, Any]]]:
    """Return True for a list of text parts, as ``normalize_messages`` leaves them."""
    if not isinstance(content, list) or not content:
        return False
    return all(isinstance(part, dict) and part.get("type") == "text" for part in content)


def variants(messages: Sequence[Plain]) -> Iterator[list[Plain]]:
    """Yield the messages as they are given, and then in their other forms."""
    kinds: dict[str, tuple[Form, ...]] = {
        "parts": (_as_given, text_of_parts),
        "value": (_as_given, _to_json),
        "arguments": (_as_given, _to_object, _to_json),
        "nothing": (_as_given, _to_null, _to_empty),
    }
    present = {kind for kind, _ in _values(messages)}
    choices = [kinds[kind] if kind in present else (_as_given,) for kind in kinds]
    for forms in product(*choices):
        chosen = dict(zip(kinds, forms, strict=True))
        yield [_convert(message, chosen) for message in messages]


def misshown(messages: Sequence[Plain], prompt: str) -> int:
    """Return how much of the messages' values a prompt does not show, or shows as no model has learned it.

    Python's notation is not what models read; JSON inside a JSON string is not either. The count includes what other
    text has in common with them, and serves to compare the prompts of ``variants``.
    """
    count = 0
    for kind, value in _values(messages):
        if kind == "nothing":
            continue
        text = text_of_parts(value) if kind == "parts" else _to_json(value)
        notation = str(_to_object(value))
        if notation != text:
            count += prompt.count(notation)
        if kind == "parts":
            count += sum(str(part["text"]).strip() not in prompt for part in value)
        else:
            count += prompt.count(json.dumps(text, ensure_ascii=False))
    if any(_is_without_text(message) for message in messages):
        count += prompt.count(str(None)) + prompt.count(_to_json(None)) + _calls_left_out(messages, prompt)
    return count


def _calls_left_out(messages: Sequence[Plain], prompt: str) -> int:
    """Return how many calls a prompt does not show: the names that the messages mention, less those in the prompt."""
    called = Counter(str(_function(call).get("name", "")) for message in messages for call in _calls(message))
    texts = [text_of_parts(message.get("content")) for message in messages]
    mentioned = {name: count + sum(text.count(name) for text in texts) for name, count in called.items() if name}
    return sum(max(0, count - prompt.count(name)) for name, count in mentioned.items())


def _values(messages: Sequence[Plain]) -> Iterator[tuple[str, Any]]:
    """Yield the kind and the value of each part of a message that has several forms."""
    for message in messages:
        content = message.get("content")
        if is_parts(content):
            yield "parts", content
        elif content is not None and not isinstance(content, str):
            yield "value", content
        for call in _calls(message):
            if (arguments := _function(call).get("arguments")) is not None:
                yield "arguments", arguments
        if _is_without_text(message):
            yield "nothing", content


def _convert(message: Plain, forms: Mapping[str, Form]) -> Plain:
    """Return a copy of a message in the given forms."""
    found = dict(message)
    content = message.get("content")
    if is_parts(content):
        found["content"] = forms["parts"](content)
    elif content is not None and not isinstance(content, str):
        found["content"] = forms["value"](content)
    if _is_without_text(message) and forms["nothing"] is not _as_given:
        found["content"] = forms["nothing"](content)
    if _calls(message):
        found["tool_calls"] = [_convert_call(call, forms["arguments"]) for call in _calls(message)]
    return found


def _convert_call(call: Any, form: Form) -> Any:
    function = _function(call)
    if function.get("arguments") is None:
        return call
    converted = {**function, "arguments": form(function["arguments"])}
    return converted if function is call else {**call, "function": converted}


def _calls(message: Plain) -> list[Any]:
    calls = message.get("tool_calls")
    return calls if isinstance(calls, list) else []


def _is_without_text(message: Plain) -> bool:
    """Return True for a message of calls alone: some templates show them only where its content is null."""
    return bool(_calls(message)) and message.get("content") in (None, "")


def _function(call: Any) -> Mapping[str, Any]:
    function = call.get("function", call) if isinstance(call, dict) else {}
    return function if isinstance(function, dict) else {}


def _as_given(value: Any) -> Any:
    return value


def _to_null(value: Any) -> None:
    return None


def _to_empty(value: Any) -> str:
    return ""


def _to_object(value: Any) -> Any:
    """Return the object that a JSON text holds; other values as they are."""
    if not isinstance(value, str):
        return value
    try:
        found = parse_json(value, strict=False)
    except ValueError:
        return value
    return found if isinstance(found, dict) else value


def _to_json(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
