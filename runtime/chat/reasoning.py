"""Reasoning blocks: a reply is a thought between ``<think>`` and ``</think>``, and an answer after it.

The templates of Qwen and EXAONE 4.0 share the tags. Either the template opens the block, or the model does as the first
thing it writes; the model may never close it.
"""

from dataclasses import dataclass
from typing import Literal

OPEN, CLOSE = "<think>", "</think>"

SpanKind = Literal["thought", "answer"]


@dataclass(frozen=True)
class ReplySpan:
    """A span of the thought or of the answer, without the tags around the thought."""

    kind: SpanKind
    text: str


def open_thought(prompt: str, continued: str = "") -> str | None:
    """Return what a prompt has of the thought that it ends in; None where it ends in none.

    Args:
        continued: the text of the final message, if the prompt leaves that open.
    """
    if CLOSE in continued:
        return None
    text = continued.strip()
    if text.startswith(OPEN):
        return continued.lstrip().removeprefix(OPEN)
    before = prompt[: prompt.rfind(text)] if text else prompt
    return continued if before.rstrip().endswith(OPEN) else None


class ReasoningParser:
    """Splits streamed text into thought and answer.

    The first closing tag ends the thought, as in the families' templates: a thought that mentions the opening tag needs
    no second closing tag. In the answer, tags are text.

    A closing tag inside Markdown code may be text. It is, if another one follows; what comes between them is held back
    until then. If none follows, it is the end of the thought. In a code fence, a closing tag at the start of a line
    ends the thought at once, unless the fence has an opening tag: models leave fences open. All else is passed on at
    once, except what may be the start of a tag.

    Args:
        opened: the prompt has already opened the block.

    Attributes:
        has_thought: the reply has a reasoning block, possibly an empty one.
    """

    def __init__(self, *, opened: bool = False) -> None:
        self.has_thought = opened
        self._state: Literal["before", "thought", "after", "answer"] = "thought" if opened else "before"
        self._pending = ""
        self._code = _CodeTracker()
        self._held: list[str] | None = None  # a closing tag in code, and the text after it

    @property
    def in_thought(self) -> bool:
        """The text so far ends inside the block."""
        return self._state == "thought"

    def push(self, chunk: str) -> list[ReplySpan]:
        """Add a chunk of text; return the spans that are now certain."""
        spans: list[ReplySpan] = []
        text, self._pending = self._pending + chunk, ""
        while text:
            if self._state == "answer":
                _append(spans, "answer", text)
                break
            text = self._read_thought(text, spans) if self._state == "thought" else self._read_between(text)
        return spans

    def flush(self) -> list[ReplySpan]:
        """Return what is still held back at the end of the text."""
        pending, self._pending = self._pending, ""
        if self._held is not None:  # no other closing tag has come
            text = "".join([*self._held, pending]).removeprefix(CLOSE).lstrip()
            self._held, self._state = None, "answer"
            return [ReplySpan("answer", text)] if text else []
        if self._state == "after" and not pending.strip():
            return []
        return [ReplySpan("thought" if self._state == "thought" else "answer", pending)] if pending else []

    def _read_between(self, text: str) -> str:
        """Read an opening tag before the answer, if there is one; whitespace after a block is dropped."""
        start = len(text) - len(text.lstrip())
        rest = text[start:]
        if rest.startswith(OPEN):
            self._state, self._code, self.has_thought = "thought", _CodeTracker(), True
            return rest[len(OPEN) :]
        if OPEN.startswith(rest):  # also if there is only whitespace
            self._pending = rest if self._state == "after" else text
            return ""
        before, self._state = self._state, "answer"
        return rest if before == "after" else text

    def _read_thought(self, text: str, spans: list[ReplySpan]) -> str:
        """Read up to the tag that ends the block; return the text after it, empty if the block goes on."""
        start = position = 0
        while position < len(text):
            tag = None
            if text[position] == "<":
                rest = text[position : position + len(CLOSE)]
                tag = next((tag for tag in (OPEN, CLOSE) if rest.startswith(tag)), None)
                if tag is None and (OPEN.startswith(rest) or CLOSE.startswith(rest)):
                    self._pending = text[position:]
                    break
            if tag is None:
                self._code.push(text[position])
                position += 1
                continue
            if tag == CLOSE:
                self._add_thought(spans, text[start:position])
                self._release(spans)  # a tag that was held back was text, since this one follows
                if self._code.ends_block():
                    self._state = "after"
                    return text[position + len(tag) :]
                self._held, start = [], position
            else:
                self._code.see_opening_tag()
            for character in tag:
                self._code.push(character)
            position += len(tag)
        self._add_thought(spans, text[start : len(text) - len(self._pending)])
        return ""

    def _add_thought(self, spans: list[ReplySpan], text: str) -> None:
        if self._held is None:
            _append(spans, "thought", text)
        else:
            self._held.append(text)

    def _release(self, spans: list[ReplySpan]) -> None:
        """Add what was held back to the thought."""
        held, self._held = self._held, None
        _append(spans, "thought", "".join(held or ()))


class _CodeTracker:
    """Tracks Markdown code, one character at a time.

    Attributes:
        fence: the number of backticks of the open code fence, or 0.
        inline: the number of backticks of the open inline code, or 0.
        has_tag: the fence has an opening tag.
        line_start: the line so far has only whitespace.
    """

    def __init__(self) -> None:
        self.fence = self.inline = self._backticks = 0
        self.has_tag = False
        self.line_start = self._backticks_start_line = True

    def push(self, character: str) -> None:
        if character == "`":
            if not self._backticks:
                self._backticks_start_line = self.line_start
            self._backticks += 1
            self.line_start = False
            return
        self._end_of_backticks()
        if character == "\n":
            self.inline, self.line_start = 0, True
        elif not character.isspace():
            self.line_start = False

    def see_opening_tag(self) -> None:
        """Note an opening tag, before its characters are pushed."""
        self._end_of_backticks()
        self.has_tag = self.fence > 0

    def ends_block(self) -> bool:
        """Return True where a closing tag, next in the text, is certainly no part of code."""
        self._end_of_backticks()
        return not self.inline and (not self.fence or (self.line_start and not self.has_tag))

    def _end_of_backticks(self) -> None:
        """Open or close code with the backticks just read; no more of them follow."""
        count, self._backticks = self._backticks, 0
        if count >= 3 and self._backticks_start_line and not self.inline:
            if not self.fence:
                self.fence, self.has_tag = count, False
            elif count >= self.fence:
                self.fence = 0
        elif count and not self.fence:
            self.inline = 0 if self.inline == count else self.inline or count


def _append(spans: list[ReplySpan], kind: SpanKind, text: str) -> None:
    if text:
        spans.append(ReplySpan(kind, text))
