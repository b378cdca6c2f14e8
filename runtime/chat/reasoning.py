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


class ReasoningParser:
    """Splits streamed text into thought and answer. Only what may be the start of a tag is held back.

    Inside the thought, tags in Markdown code are text, and every nested opening tag needs its own closing tag. A code
    fence that is never closed does not hide the end of the thought: a closing tag at the start of a line ends the
    thought, unless the same fence contains its opening tag. In the answer, tags are text.

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
        self._depth = 1

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
        if self._state == "after" and not pending.strip():
            return []
        return [ReplySpan("thought" if self._state == "thought" else "answer", pending)] if pending else []

    def _read_between(self, text: str) -> str:
        """Read an opening tag before the answer, if there is one; whitespace after a block is dropped."""
        start = len(text) - len(text.lstrip())
        rest = text[start:]
        if rest.startswith(OPEN):
            self._state, self._code, self._depth, self.has_thought = "thought", _CodeTracker(), 1, True
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
            if self._ends_block(tag):
                _append(spans, "thought", text[start:position])
                self._state = "after"
                return text[position + len(tag) :]
            for character in tag:
                self._code.push(character)
            position += len(tag)
        _append(spans, "thought", text[start : len(text) - len(self._pending)])
        return ""

    def _ends_block(self, tag: str) -> bool:
        """Return True if this tag ends the block; otherwise update the nesting depth."""
        code = self._code
        code.end_of_backticks()
        if code.inline:
            return False
        if code.fence:
            if tag == OPEN:
                code.open_tags += 1
                return False
            if code.open_tags or not code.line_start:
                code.open_tags = max(0, code.open_tags - 1)
                return False
            code.fence = 0
        self._depth += 1 if tag == OPEN else -1
        return self._depth == 0


class _CodeTracker:
    """Tracks Markdown code, one character at a time.

    Attributes:
        fence: the number of backticks of the open code fence, or 0.
        inline: the number of backticks of the open inline code, or 0.
        open_tags: the number of ``<think>`` tags that are open inside the fence.
        line_start: the line so far has only whitespace.
    """

    def __init__(self) -> None:
        self.fence = self.inline = self.open_tags = self._backticks = 0
        self.line_start = self._backticks_start_line = True

    def push(self, character: str) -> None:
        if character == "`":
            if not self._backticks:
                self._backticks_start_line = self.line_start
            self._backticks += 1
            self.line_start = False
            return
        self.end_of_backticks()
        if character == "\n":
            self.inline, self.line_start = 0, True
        elif not character.isspace():
            self.line_start = False

    def end_of_backticks(self) -> None:
        """Open or close code with the backticks just read; no more of them follow."""
        count, self._backticks = self._backticks, 0
        if count >= 3 and self._backticks_start_line and not self.inline:
            if not self.fence:
                self.fence, self.open_tags = count, 0
            elif count >= self.fence:
                self.fence = 0
        elif count and not self.fence:
            self.inline = 0 if self.inline == count else self.inline or count


def _append(spans: list[ReplySpan], kind: SpanKind, text: str) -> None:
    if text:
        spans.append(ReplySpan(kind, text))
