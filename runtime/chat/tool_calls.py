"""Tool calls in streamed text: ``<tool_call>{"name": ..., "arguments": {...}}</tool_call>``.

The templates of Qwen2 and EXAONE 4.0 ask for the same form, with and without line breaks around the JSON.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from .bare_call import BareCallScanner
from .json_scanner import JsonScanner
from .tool_call import CLOSE, OPEN, BrokenToolCall, ToolCall, parse_call
from .tool_schema import function_of

FENCE = "```"

TextOrCall = str | ToolCall | BrokenToolCall


class ToolCallParser:
    """Splits streamed text into text and tool calls.

    Text is returned at once, except what may be the start of a tag, and an answer that may be a call without tags
    (``bare_call``).

    Args:
        schemas: the tools, as JSON schemas.
    """

    def __init__(self, schemas: Sequence[Mapping[str, Any]]) -> None:
        self._tools = {function["name"]: function for function in map(function_of, schemas)}
        self._pending = ""
        self._tagged: _TaggedCallScanner | None = None
        self._bare: BareCallScanner | None = BareCallScanner()
        self._fence_open = False  # a code fence around a call without tags is not closed yet
        self._after_call = False  # whitespace after a call is dropped

    def push(self, chunk: str) -> list[TextOrCall]:
        """Add a chunk of text; return the text and the calls that it completes."""
        return self._read(chunk, final=False)

    def flush(self) -> list[TextOrCall]:
        """Return what is still held back at the end of the text; a call that is cut off is broken."""
        return self._read("", final=True)

    def _read(self, chunk: str, *, final: bool) -> list[TextOrCall]:
        found: list[TextOrCall] = []
        text, self._pending = self._pending + chunk, ""
        while text or (final and self._tagged is not None):
            if self._tagged is not None:
                text = self._read_tagged_call(self._tagged, text, found, final)
            elif self._bare is not None:
                text = self._read_bare_call(self._bare, text, found, final)
            else:
                text = self._read_text(text, found, final)
        return found

    def _read_bare_call(self, bare: BareCallScanner, text: str, found: list[TextOrCall], final: bool) -> str:
        """Read a call without tags, at the start of the answer or after a call; return the rest of the text."""
        if self._after_call:
            text = text.lstrip()
            if self._fence_open and FENCE.startswith(text[:3]):
                if len(text) < 3 and not final:
                    self._pending = text
                    return ""
                text = text[3:].lstrip()
            self._fence_open = False
        end = bare.end(text) if bare.matches(text) else None
        if end is not None:
            call = self._parse_bare_call(text[:end])
            if call is not None:
                found.append(call)
                self._fence_open = FENCE in text[:end].partition("{")[0]
                self._after_call, self._bare = True, BareCallScanner()
                return text[end:]
        elif bare.matches(text) and not final:
            self._pending = text
            return ""
        self._bare = None
        return text

    def _parse_bare_call(self, text: str) -> ToolCall | BrokenToolCall | None:
        """Parse JSON without tags; None unless it names a known tool and has no other keys than a call."""
        body = text[text.index("{") :]
        try:
            call = json.loads(body, strict=False)
        except (ValueError, RecursionError):
            return None
        if call.get("name") not in self._tools or not set(call) <= {"name", "arguments"}:
            return None
        parsed = parse_call(body, self._tools)
        return parsed if isinstance(parsed, ToolCall) else BrokenToolCall(body, parsed.reason)

    def _read_text(self, text: str, found: list[TextOrCall], final: bool) -> str:
        """Read text up to the next opening tag; return the rest."""
        if self._after_call:
            text = text.lstrip()
        before, tag, rest = text.partition(OPEN)
        if not tag and not final:
            keep = next((n for n in range(len(OPEN) - 1, 0, -1) if text.endswith(OPEN[:n])), 0)
            before, self._pending = text[: len(text) - keep], text[len(text) - keep :]
        if before:
            found.append(before)
            self._after_call = False
        self._tagged = _TaggedCallScanner() if tag else None
        return rest

    def _read_tagged_call(self, tagged: "_TaggedCallScanner", text: str, found: list[TextOrCall], final: bool) -> str:
        """Read a call up to the tag that ends it; return the rest of the text."""
        end = tagged.end(text)
        if end is None and not final:
            self._pending = text
            return ""
        if end is None and CLOSE in text:  # inside a string that is never closed
            end = (text.index(CLOSE), CLOSE)
        body, tag, rest = (text, "", "") if end is None else (text[: end[0]], end[1], text[end[0] + len(end[1]) :])
        found.append(parse_call(body, self._tools, closed=tag == CLOSE))
        self._tagged = _TaggedCallScanner() if tag == OPEN else None  # a model may open a call without closing the last
        self._after_call, self._bare = True, BareCallScanner()
        return rest


class _TaggedCallScanner:
    """Finds the tag that ends a call's JSON: the first one outside its strings."""

    def __init__(self) -> None:
        self._json = JsonScanner()
        self._position = 0

    def end(self, text: str) -> tuple[int, str] | None:
        """Return the position of the tag and the tag, or None if it is not there yet.

        ``text`` must start with the text of the previous call; each character is scanned once.
        """
        while self._position < len(text):
            character = text[self._position]
            if character == "<" and not self._json.in_string:
                rest = text[self._position : self._position + len(CLOSE)]
                for tag in (CLOSE, OPEN):
                    if rest.startswith(tag):
                        return self._position, tag
                    if tag.startswith(rest):
                        return None
            self._json.push(character)
            self._position += 1
        return None
