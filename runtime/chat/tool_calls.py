"""Tool calls in streamed text, in the forms of ``call_formats``, with and without line breaks around the JSON.

What a model writes never raises: it is text, a call, or a broken call with the reason.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from ...files.chat.tool_schema import function_of
from ...files.json_file import parse_json
from .bare_call import BareCallScanner
from .call_formats import FENCE, FORMATS, WRAPPERS, CallFormat, TaggedCallScanner, split_objects
from .call_grammar import call_fits
from .tool_call import BrokenToolCall, ToolCall, parse_call

TAGS = (*(format.opening for format in FORMATS), *WRAPPERS)
LONGEST_TAG = max(map(len, TAGS))
BEGINNINGS = [tuple({tag[:length] for tag in TAGS if length < len(tag)}) for length in range(LONGEST_TAG)]
"""The beginnings of the tags by their length, the whole tags left out."""

BareCalls = Literal["all", "fitting", "none"]
TextOrCall = str | ToolCall | BrokenToolCall


class ToolCallParser:
    """Splits streamed text into text and tool calls.

    Text is returned at once, except what may be the start of a tag, and an answer that may be a call without tags
    (``bare_call``).

    Args:
        schemas: the tools, as JSON schemas.
        bare: the calls that may have no tags: all, those whose arguments fit the schema in full, or none.
    """

    def __init__(self, schemas: Sequence[Mapping[str, Any]], *, bare: BareCalls = "all") -> None:
        self._tools = {function["name"]: function for function in map(function_of, schemas)}
        self._pending = ""
        self._tagged: TaggedCallScanner | None = None
        self._bare_calls = bare
        self._bare = BareCallScanner() if bare != "none" else None
        self._fence_open = False  # a code fence around a call without tags is not closed yet
        self._after_call = False  # whitespace after a call is dropped

    @property
    def open_call(self) -> str | None:
        """The text of the call that is not complete, its opening tag included; None where there is none."""
        return None if self._tagged is None else self._tagged.format.opening + self._pending

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
            call = parse_json(body, strict=False)
        except ValueError:
            return None
        if not isinstance(call, dict) or not set(call) <= {"name", "arguments"}:
            return None
        if not isinstance(call.get("name"), str) or call["name"] not in self._tools:
            return None
        parsed = parse_call(body, self._tools)
        if self._bare_calls == "fitting":
            fits = isinstance(parsed, ToolCall) and call_fits(parsed, self._tools[parsed.name].get("parameters"))
            return parsed if fits else None
        return parsed if isinstance(parsed, ToolCall) else BrokenToolCall(body, parsed.reason)

    def _read_text(self, text: str, found: list[TextOrCall], final: bool) -> str:
        """Read text up to the next opening tag; return the rest."""
        if self._after_call:
            text = text.lstrip()
        position, tag = min(((text.index(tag), tag) for tag in TAGS if tag in text), default=(len(text), ""))
        if not tag and not final:
            position -= max(n for n in range(LONGEST_TAG) if text.endswith(BEGINNINGS[n]))
        before, rest = text[:position], text[position + len(tag) :]
        if before:
            found.append(before)
            self._after_call = False
        if tag in WRAPPERS:
            self._after_call = True
        elif tag:
            self._tagged = TaggedCallScanner(next(format for format in FORMATS if format.opening == tag))
        else:
            self._pending, rest = rest, ""
        return rest

    def _read_tagged_call(self, tagged: TaggedCallScanner, text: str, found: list[TextOrCall], final: bool) -> str:
        """Read a call up to the tag that ends it; return the rest of the text."""
        format = tagged.format
        if not format.certain and text.lstrip()[:1] not in ("", "{"):
            return self._keep_as_text(format.opening, found, text)
        end = tagged.end(text)
        if end is None and not final:
            self._pending = text
            return ""
        if end is None and format.closing in text:  # inside a string that is never closed
            end = (text.index(format.closing), format.closing)
        body, tag, rest = (text, "", "") if end is None else (text[: end[0]], end[1], text[end[0] + len(end[1]) :])
        closed = tag == format.closing
        calls = self._parse_calls(body, format, closed=closed)
        if calls is None:
            return self._keep_as_text(format.opening + body + tag, found, rest)
        found += calls
        self._tagged = TaggedCallScanner(format) if tag == format.opening else None
        self._after_call, self._bare = True, BareCallScanner() if self._bare_calls != "none" else None
        return rest

    def _parse_calls(self, body: str, format: CallFormat, *, closed: bool) -> list[TextOrCall] | None:
        """Parse what is between tags, which may be several calls; None where it is text."""
        bodies = split_objects(body)
        if format.certain:
            return [parse_call(one, self._tools, format=format, closed=closed) for one in bodies]
        calls = [self._parse_bare_call(one) if one.lstrip().startswith("{") else None for one in bodies]
        known: list[TextOrCall] = [call for call in calls if call is not None]
        return known if len(known) == len(calls) else None

    def _keep_as_text(self, text: str, found: list[TextOrCall], rest: str) -> str:
        """Return tags that are no call, and what is between them, as text."""
        found.append(text)
        self._tagged, self._after_call = None, False
        return rest
