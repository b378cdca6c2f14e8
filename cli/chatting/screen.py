"""The input and output of a conversation: a terminal, a pipe, or a pipe with JSON lines."""

import contextlib
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from ...errors import UsageError
from ..show import echo, printable, to_json
from ..texts import BYTE_ORDER_MARK

if TYPE_CHECKING:
    from ...runtime import ChatEvent, ChatReply
    from ...runtime.chat.tool_loop import ToolResult


class Screen(Protocol):
    """The interface of a conversation to its user."""

    interactive: bool

    def ask(self, prompt: str) -> str | None:
        """Return the next line without its line break, or None at the end."""

    def event(self, event: "ChatEvent") -> None:
        """Show a part of the model's turn."""

    def end(self, reply: "ChatReply", speed: str) -> None:
        """End the model's turn."""

    def result(self, result: "ToolResult") -> None:
        """Show the result of a call."""

    def note(self, text: str) -> None:
        """Show a message to an interactive user."""

    def problem(self, text: str) -> None:
        """Show an error after which the conversation continues."""


class Terminal:
    """An interactive terminal: dim thoughts, calls and results, line editing with a history."""

    interactive = True

    def __init__(self) -> None:
        with contextlib.suppress(ImportError):  # not available on every platform
            import readline  # noqa: F401  (gives ``input`` line editing and a history)
        self._last_kind = ""  # of the last event shown
        self._column = 0

    def ask(self, prompt: str) -> str | None:
        try:
            return input(printable(prompt))
        except EOFError:
            echo()
            return None
        except UnicodeDecodeError:
            self.problem("the line is not UTF-8; set the terminal to UTF-8")
            return ""

    def event(self, event: "ChatEvent") -> None:
        if event.kind == "thought" and self._last_kind != "thought":
            event = replace(event, text=event.text.lstrip("\n"))
            if not event.text:
                return
        if event.kind in ("call", "broken_call"):
            self._fresh_line()
            mark, colour = ("→", "cyan") if event.kind == "call" else ("✗", "red")
            echo(f"{mark} {event.text}", fg=colour)
        elif event.kind == "thought":
            self._write(event.text, dim=True)
        else:
            if self._last_kind == "thought":
                self._fresh_line()
            self._write(event.text)
        self._last_kind = event.kind

    def end(self, reply: "ChatReply", speed: str) -> None:
        self._fresh_line()
        self._last_kind = ""
        echo(f"[{speed}]", dim=True)

    def result(self, result: "ToolResult") -> None:
        echo(f"← {result.content}", fg="red" if result.failed else "green")

    def note(self, text: str) -> None:
        echo(text, dim=True)

    def problem(self, text: str) -> None:
        echo(text, fg="red", err=True)

    def _write(self, text: str, *, dim: bool = False) -> None:
        echo(text, nl=False, **({"dim": True} if dim else {}))
        self._column = 0 if text.endswith("\n") else 1

    def _fresh_line(self) -> None:
        if self._column:
            echo()
        self._column = 0


class Pipe:
    """A pipe: messages are lines of standard input; answers go to standard output, calls to standard error."""

    interactive = False

    def __init__(self) -> None:
        self._at_start = True

    def ask(self, prompt: str) -> str | None:
        line = sys.stdin.buffer.readline()
        if not line:
            return None
        try:
            text = line.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise UsageError(
                f"standard input: byte {error.start} of a line is not UTF-8; convert the text to UTF-8"
            ) from None
        mark, self._at_start = BYTE_ORDER_MARK if self._at_start else "", False
        return text.removeprefix(mark)

    def event(self, event: "ChatEvent") -> None:
        if event.kind == "answer":
            echo(event.text, nl=False)
        elif event.kind != "thought":
            echo(f"{'→' if event.kind == 'call' else '✗'} {event.text}", err=True)

    def end(self, reply: "ChatReply", speed: str) -> None:
        if reply.text or not (reply.tool_calls or reply.broken_calls):
            echo()

    def result(self, result: "ToolResult") -> None:
        echo(f"← {result.content}", err=True)

    def note(self, text: str) -> None:
        """Show nothing: no user reads along."""

    def problem(self, text: str) -> None:
        raise UsageError(text)


class JsonLines(Pipe):
    """A pipe with one line of JSON for each turn of the model and each result of a call."""

    def event(self, event: "ChatEvent") -> None:
        """Print nothing: ``end`` prints the complete turn."""

    def end(self, reply: "ChatReply", speed: str) -> None:
        generation = reply.generation
        _print_line(
            {
                "text": reply.text,
                "thought": reply.thought,
                "tool_calls": [{"name": call.name, "arguments": call.arguments} for call in reply.tool_calls],
                "broken_calls": [{"text": call.text, "reason": call.reason} for call in reply.broken_calls],
                "finish_reason": generation.finish_reason if generation is not None else None,
                "tokens": len(generation.token_ids) if generation is not None else None,
            }
        )

    def result(self, result: "ToolResult") -> None:
        _print_line({"result": result.content, "failed": result.failed})


def _print_line(document: dict[str, object]) -> None:
    echo(to_json(document))
