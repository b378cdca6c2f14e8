"""Tool calls in a model's text: ``<tool_call>{"name": ..., "arguments": {...}}</tool_call>``.

Qwen2's and EXAONE 4.0's templates ask for the same form, with and without line breaks around the JSON. What a model
writes is never an error here: a call that cannot be carried out is a ``BrokenToolCall`` with the reason, which can be
told to the model.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .bare_call import BareCall
from .tool_schema import function_of

OPEN, CLOSE = "<tool_call>", "</tool_call>"
FENCE = "```"

KINDS: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
    "null": (type(None),),
}


@dataclass(frozen=True)
class ToolCall:
    """A call of a known tool with the arguments that its schema asks for."""

    name: str
    arguments: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return (
            f"{self.name}({', '.join(f'{k}={json.dumps(v, ensure_ascii=False)}' for k, v in self.arguments.items())})"
        )


@dataclass(frozen=True)
class BrokenToolCall:
    """What the model wrote, tags included, and why it cannot be carried out."""

    text: str
    reason: str

    def __str__(self) -> str:
        return f"{self.text.strip()} ({self.reason})"


Found = str | ToolCall | BrokenToolCall


class ToolCalls:
    """Finds calls in streamed text. Text is passed on at once, but for what may be the beginning of a tag, and answers
    that begin as a call without tags would (``barecall``).

    Args:
        schemas: the tools that there are, as JSON schemas.
    """

    def __init__(self, schemas: Sequence[Mapping[str, Any]]) -> None:
        self._tools = {found["name"]: found for found in map(function_of, schemas)}
        self._held = ""
        self._inside: _Body | None = None
        self._bare: BareCall | None = BareCall()
        self._fence = False  # the fence around a call without tags is still open
        self._after = False  # space that follows a call belongs to no text

    def push(self, piece: str) -> list[Found]:
        """The text and the calls that are certain now."""
        return self._read(piece, final=False)

    def flush(self) -> list[Found]:
        """What was held back, at the end of the text: a call that was cut off among it."""
        return self._read("", final=True)

    def _read(self, piece: str, *, final: bool) -> list[Found]:
        found: list[Found] = []
        text, self._held = self._held + piece, ""
        while text or (final and self._inside is not None):
            if self._inside is not None:
                text = self._call(text, found, final)
            elif self._bare is not None:
                text = self._without_tags(text, self._bare, found, final)
            else:
                text = self._text(text, found, final)
        return found

    def _without_tags(self, text: str, bare: BareCall, found: list[Found], final: bool) -> str:
        """At the beginning, and behind a call: what may be a call without tags."""
        if self._after:
            text = text.lstrip()
            if self._fence and FENCE.startswith(text[:3]):
                if len(text) < 3 and not final:
                    self._held = text
                    return ""
                text = text[3:].lstrip()
            self._fence = False
        end = bare.end(text) if bare.possible(text) else None
        if end is not None:
            call = self._named(text[:end])
            if call is not None:
                found.append(call)
                self._after, self._fence, self._bare = True, FENCE in text[:end].partition("{")[0], BareCall()
                return text[end:]
        elif bare.possible(text) and not final:
            self._held = text
            return ""
        self._bare = None
        return text

    def _named(self, text: str) -> ToolCall | BrokenToolCall | None:
        """JSON without tags as a call, if it is one of a tool that there is."""
        body = text[text.index("{") :]
        try:
            call = json.loads(body, strict=False)
        except (ValueError, RecursionError):
            return None
        if call.get("name") not in self._tools or not set(call) <= {"name", "arguments"}:
            return None
        parsed = parse_call(body, self._tools)
        return parsed if isinstance(parsed, ToolCall) else BrokenToolCall(body, parsed.reason)

    def _text(self, text: str, found: list[Found], final: bool) -> str:
        if self._after:
            text = text.lstrip()
        before, tag, rest = text.partition(OPEN)
        if not tag and not final:
            keep = next((n for n in range(len(OPEN) - 1, 0, -1) if text.endswith(OPEN[:n])), 0)
            before, self._held = text[: len(text) - keep], text[len(text) - keep :]
        if before:
            found.append(before)
            self._after = False
        self._inside = _Body() if tag else None
        return rest

    def _call(self, text: str, found: list[Found], final: bool) -> str:
        assert self._inside is not None
        end = self._inside.end(text)
        if end is None and not final:
            self._held = text
            return ""
        if end is None and CLOSE in text:  # in a string that never ended
            end = (text.index(CLOSE), CLOSE)
        body, tag, rest = (text, "", "") if end is None else (text[: end[0]], end[1], text[end[0] + len(end[1]) :])
        found.append(parse_call(body, self._tools, closed=tag == CLOSE))
        self._inside = _Body() if tag == OPEN else None  # the model may go on to the next call without closing this one
        self._after, self._bare = True, BareCall()
        return rest


class _Body:
    """Looks for the tag that ends a call's JSON: the first that is not inside one of its strings."""

    def __init__(self) -> None:
        self._at = 0
        self._quoted = self._escaped = False

    def end(self, text: str) -> tuple[int, str] | None:
        """Where the tag begins, and which. ``text`` is that of the last time, or longer: it is read only once."""
        while self._at < len(text):
            character = text[self._at]
            if character == "<" and not self._quoted:
                rest = text[self._at : self._at + len(CLOSE)]
                for tag in (CLOSE, OPEN):
                    if rest.startswith(tag):
                        return self._at, tag
                    if tag.startswith(rest):
                        return None
            if self._escaped:
                self._escaped = False
            elif self._quoted and character == "\\":
                self._escaped = True
            elif character == '"':
                self._quoted = not self._quoted
            self._at += 1
        return None


def parse_call(body: str, tools: Mapping[str, Mapping[str, Any]], *, closed: bool = True) -> ToolCall | BrokenToolCall:
    """What stands between the tags, as a call of one of ``tools`` (their descriptions by name)."""
    text = OPEN + body + (CLOSE if closed else "")
    try:
        call = json.loads(body, strict=False)
    except (ValueError, RecursionError) as error:
        if not closed:
            return BrokenToolCall(text, "the call was cut off before its end")
        return BrokenToolCall(text, f"the call is no JSON: {_json_error(error)}")
    if not isinstance(call, dict) or not isinstance(call.get("name"), str):
        return BrokenToolCall(text, 'the call names no tool; write {"name": ..., "arguments": {...}}')
    name, arguments = call["name"], call.get("arguments")
    if name not in tools:
        known = ", ".join(tools) or "none"
        return BrokenToolCall(text, f"there is no tool {name!r}; there are: {known}")
    if isinstance(arguments, str):  # JSON within JSON, as some APIs have it
        try:
            arguments = json.loads(arguments, strict=False)
        except (ValueError, RecursionError) as error:
            return BrokenToolCall(text, f"the arguments of {name} are no JSON: {_json_error(error)}")
    if arguments is None:
        arguments = {}
    if not isinstance(arguments, dict):
        return BrokenToolCall(
            text, f"the arguments of {name} are {_kind(arguments)}, not an object of names and values"
        )
    wrong = _mismatch(name, arguments, tools[name].get("parameters") or {})
    return BrokenToolCall(text, wrong) if wrong else ToolCall(name, arguments)


def _mismatch(name: str, arguments: dict[str, Any], parameters: Mapping[str, Any]) -> str | None:
    """What the schema has against the arguments: names, and the kinds and choices of values, not what is inside."""
    properties = parameters.get("properties") or {}
    for argument in parameters.get("required") or ():
        if argument not in arguments:
            return f"{name} needs the argument {argument!r}"
    for argument, value in arguments.items():
        schema = properties.get(argument)
        if schema is None:
            if properties and not parameters.get("additionalProperties"):
                return f"{name} has no argument {argument!r}; it has: {', '.join(properties)}"
            continue
        kinds = schema.get("type", [])
        kinds = [kinds] if isinstance(kinds, str) else kinds
        if value is None and schema.get("nullable"):
            continue
        if kinds and not any(_fits(value, kind) for kind in kinds):
            return f"{name}: the argument {argument!r} is {_kind(value)}, expected {' or '.join(kinds)}"
        if "enum" in schema and value not in schema["enum"]:
            choices = ", ".join(json.dumps(one, ensure_ascii=False) for one in schema["enum"])
            return f"{name}: the argument {argument!r} is {json.dumps(value, ensure_ascii=False)}, expected: {choices}"
    return None


def _fits(value: Any, kind: str) -> bool:
    if isinstance(value, bool):  # which Python counts among the integers
        return kind == "boolean"
    return isinstance(value, KINDS.get(kind, (object,))) or (
        kind == "integer" and isinstance(value, float) and value.is_integer()
    )


def _kind(value: Any) -> str:
    return next(
        (name for name in ("boolean", "string", "integer", "number", "array", "null") if _fits(value, name)), "object"
    )


def _json_error(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg.removesuffix(' at')} at character {error.pos}"
    return "it nests too deeply"
