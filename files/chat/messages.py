"""The messages of a conversation as a chat template receives them: checked, and reduced to plain values."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from typing import Any

from ...errors import PromptError, UsageError
from .forms import TOOL_ROLES, is_parts

Message = Mapping[str, Any]

THOUGHT_KEYS = ("reasoning_content", "thinking", "reasoning")
"""Keys under which a message may hold its thought. Templates read the first."""

TEXT_PARTS = ("text", "input_text", "output_text")
"""The types of text in lists of content parts."""

END_MARKER = "CONTINUE_FINAL_MESSAGE_TAG "
"""Marks the end of the final message's text while the template renders it."""


def normalize_messages(messages: Any) -> list[dict[str, Any]]:
    """Return copies of the messages: plain values without None, and the thought under each key that templates read.

    The content of a message of calls alone may be None: some templates show the calls only then.

    Raises:
        PromptError: the messages are not a list of at least one message, or a message has no role or no text.
    """
    if isinstance(messages, str | Mapping) or not isinstance(messages, Sequence):
        raise PromptError(
            f"the conversation is {type(messages).__name__}, expected a list of messages; "
            'give [{"role": "user", "content": "..."}]'
        )
    if not messages:
        raise PromptError("the conversation is empty; give at least one message")
    return [_normalize_message(message, index) for index, message in enumerate(messages)]


def _normalize_message(message: Any, index: int) -> dict[str, Any]:
    plain = plain_value(message)
    if not isinstance(plain, dict) or not isinstance(plain.get("role"), str):
        raise PromptError(f'message {index} has no role; give {{"role": "user", "content": "..."}}')
    calls = bool(plain.get("tool_calls"))
    values = {name: value for name, value in plain.items() if value is not None or (name == "content" and calls)}
    content = values.get("content")
    is_result = values["role"] in TOOL_ROLES
    if isinstance(content, list) and not (is_result and not _has_types(content)):
        values["content"] = [
            _text_part(part, f"message {index}, role {values['role']!r}: part {at} of its content")
            for at, part in enumerate(content)
        ] or ""
    elif content is not None and not isinstance(content, str) and not is_result:
        raise PromptError(
            f"message {index}, role {values['role']!r}: its content is {type(content).__name__}; "
            "give text, or a list of text parts"
        )
    thought = next((values[key] for key in THOUGHT_KEYS if values.get(key) is not None), None)
    return values if thought is None else {"thinking": thought, **values, "reasoning_content": thought}


def _has_types(content: list[Any]) -> bool:
    """Return True for a list of content parts; a tool's result may also be any other list."""
    return bool(content) and all(isinstance(part, dict) and isinstance(part.get("type"), str) for part in content)


def _text_part(part: Any, where: str) -> dict[str, Any]:
    """Return a part of a message's content as templates know it.

    Raises:
        PromptError: it is not text.
    """
    if isinstance(part, str):
        return {"type": "text", "text": part}
    kind = part.get("type", "text") if isinstance(part, dict) else type(part).__name__
    if kind not in TEXT_PARTS:
        raise PromptError(f"{where} is of type {kind!r}, and the model reads text; give parts of type 'text'")
    if not isinstance(part.get("text"), str):
        raise PromptError(f'{where} has no text; give {{"type": "text", "text": "..."}}')
    return {**part, "type": "text"}


def plain_value(value: Any) -> Any:
    """Convert a value to JSON types, so that a template can only reach the methods of those types.

    Raises:
        PromptError: it is nested too deeply.
    """
    try:
        return _plain_value(value)
    except RecursionError:
        raise PromptError("a message, a tool or a variable is nested too deeply; give a flatter one") from None


def _plain_value(value: Any) -> Any:
    if value is None or type(value) in (str, int, float, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)  # a subclass may override __str__
    if isinstance(value, int | float):
        return int.__int__(value) if isinstance(value, int) else float.__float__(value)
    if isinstance(value, Mapping):
        return {_plain_value(key): _plain_value(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain_value(item) for item in value] if isinstance(value, list) else tuple(map(_plain_value, value))
    if is_dataclass(value) and not isinstance(value, type):
        return _plain_value(asdict(value))
    if callable(item := getattr(value, "item", None)) and getattr(value, "shape", None) == ():
        return _plain_value(item())  # a numpy scalar
    if callable(dump := getattr(value, "model_dump", None)):
        return _plain_value(dump())  # a pydantic model
    return f"<{type(value).__name__}>"


def mark_final_text(messages: list[dict[str, Any]], template: str) -> str:
    """Append END_MARKER to the last message's text, in place; return the text without it.

    Raises:
        PromptError: the last message has no text.
        UsageError: the template does not read the content of messages.
    """
    content = messages[-1].get("content")
    marked: str | list[dict[str, Any]]
    if isinstance(content, str):
        text, marked = content, content + END_MARKER
    elif is_parts(content):
        text = content[-1]["text"]
        marked = [*content[:-1], {**content[-1], "text": text + END_MARKER}]
    else:
        raise PromptError(
            f"message {len(messages) - 1}, role {messages[-1]['role']!r}, has no content to continue; give it text"
        )
    if "content" not in template:
        raise UsageError(
            "continue_final_message: the chat template does not read the content of messages; leave the option out"
        )
    messages[-1] = {**messages[-1], "content": marked}
    return str(text)


def cut_at_marker(prompt: str, final_text: str) -> str:
    """Return the prompt up to the end of the final message's text.

    Raises:
        PromptError: the prompt does not contain that text.
    """
    position = prompt.rfind(END_MARKER.strip())
    if position < 0 or final_text.strip() not in prompt:
        raise PromptError(
            "continue_final_message: the last message's text is not in the prompt, "
            "because the chat template leaves it out or changes it; give a message that it keeps"
        )
    # A template that strips the message has stripped the marker's space, and would have stripped the text before it.
    trimmed = prompt[position : position + len(END_MARKER)] != END_MARKER
    return prompt[:position].rstrip() if trimmed else prompt[:position]
