"""A reply in two parts, as it streams: what the model thought, between ``<think>`` and ``</think>``, and its answer.

Qwen's and EXAONE 4.0's templates share the tags. The block is opened by the template, or by the model as the first
thing it says; it is closed by the model, or never. Nothing is held back but what may be the beginning of a tag.
"""

from dataclasses import dataclass
from typing import Literal

OPEN, CLOSE = "<think>", "</think>"

Kind = Literal["thought", "answer"]


@dataclass(frozen=True)
class Part:
    """A piece of the thought or of the answer, without the tags around the thought."""

    kind: Kind
    text: str


class Reasoning:
    """Splits streamed text into thought and answer.

    In the thought, tags within Markdown code are text, and a tag that opens again has to be closed again. A fence that
    was never closed does not hide the end: a closing tag at the beginning of its line ends the thought even there,
    unless the same code opened it. In the answer every tag is text.

    Args:
        opened: the prompt has opened the block already.
    """

    def __init__(self, *, opened: bool = False) -> None:
        self._state: Literal["before", "thought", "after", "answer"] = "thought" if opened else "before"
        self._held = ""
        self._code = _Code()
        self._depth = 1
        self.thinking = opened
        """Whether there was a block at all."""

    def push(self, piece: str) -> list[Part]:
        """The parts that are certain now."""
        parts: list[Part] = []
        text, self._held = self._held + piece, ""
        while text:
            if self._state == "answer":
                _add(parts, "answer", text)
                break
            text = self._thought(text, parts) if self._state == "thought" else self._between(text)
        return parts

    def flush(self) -> list[Part]:
        """What was held back, at the end of the text."""
        held, self._held = self._held, ""
        if self._state == "after" and not held.strip():
            return []
        return [Part("thought" if self._state == "thought" else "answer", held)] if held else []

    def _between(self, text: str) -> str:
        """Before the answer: a block may open. Space behind a block belongs to neither part."""
        start = len(text) - len(text.lstrip())
        rest = text[start:]
        if rest.startswith(OPEN):
            self._state, self._code, self._depth, self.thinking = "thought", _Code(), 1, True
            return rest[len(OPEN) :]
        if OPEN.startswith(rest):  # nothing but space, too
            self._held = rest if self._state == "after" else text
            return ""
        before, self._state = self._state, "answer"
        return rest if before == "after" else text

    def _thought(self, text: str, parts: list[Part]) -> str:
        """Read on to the end of the block; the rest of the text, empty where it has not ended."""
        begin = at = 0
        while at < len(text):
            tag = None
            if text[at] == "<":
                rest = text[at : at + len(CLOSE)]
                tag = next((tag for tag in (OPEN, CLOSE) if rest.startswith(tag)), None)
                if tag is None and (OPEN.startswith(rest) or CLOSE.startswith(rest)):
                    self._held = text[at:]
                    break
            if tag is None:
                self._code.push(text[at])
                at += 1
                continue
            if self._counts(tag):
                _add(parts, "thought", text[begin:at])
                self._state = "after"
                return text[at + len(tag) :]
            for character in tag:
                self._code.push(character)
            at += len(tag)
        _add(parts, "thought", text[begin : len(text) - len(self._held)])
        return ""

    def _counts(self, tag: str) -> bool:
        """Whether this tag ends the block; others change what is open."""
        code = self._code
        code.settle()
        if code.inline:
            return False
        if code.fence:
            if tag == OPEN:
                code.opened += 1
                return False
            if code.opened or not code.line_start:
                code.opened = max(0, code.opened - 1)
                return False
            code.fence = 0
        self._depth += 1 if tag == OPEN else -1
        return self._depth == 0


class _Code:
    """Whether a text is inside Markdown code, a character at a time.

    ``fence`` and ``inline`` are the number of backticks that opened the code, or 0; ``opened`` counts the tags that
    the fenced code has opened.
    """

    def __init__(self) -> None:
        self.fence = self.inline = self.opened = self._run = 0
        self.line_start = self._run_at_start = True

    def push(self, character: str) -> None:
        if character == "`":
            if not self._run:
                self._run_at_start = self.line_start
            self._run += 1
            self.line_start = False
            return
        self.settle()
        if character == "\n":
            self.inline, self.line_start = 0, True
        elif not character.isspace():
            self.line_start = False

    def settle(self) -> None:
        """The backticks just read are all there are."""
        run, self._run = self._run, 0
        if run >= 3 and self._run_at_start and not self.inline:
            if not self.fence:
                self.fence, self.opened = run, 0
            elif run >= self.fence:
                self.fence = 0
        elif run and not self.fence:
            self.inline = 0 if self.inline == run else self.inline or run


def _add(parts: list[Part], kind: Kind, text: str) -> None:
    if text:
        parts.append(Part(kind, text))
