"""Where a conversation is shown and messages come from: a terminal, a pipe, or a pipe of JSON lines."""

import contextlib
import json
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

import click

from ...errors import UsageError

if TYPE_CHECKING:
    from ...runtime import ChatEvent, ChatReply
    from ...runtime.chat.tool_loop import ToolResult

# What a model writes must not steer the terminal: control characters become pictures of themselves.
_CONTROLS = {code: 0x2400 + code for code in range(32) if code not in (9, 10)} | {0x7F: 0x2421, 0x9B: 0x241B}


class Screen(Protocol):
    """What a conversation needs to show, and to ask for."""

    interactive: bool

    def ask(self, prompt: str) -> str | None:
        """The next line without its end; None when there are no more."""

    def event(self, event: "ChatEvent") -> None:
        """A piece of what the model says."""

    def end(self, reply: "ChatReply", pace: str) -> None:
        """The model's turn is over."""

    def result(self, result: "ToolResult") -> None:
        """What the model is told about a call."""

    def note(self, text: str) -> None:
        """Something for the person at the keyboard."""

    def problem(self, text: str) -> None:
        """Something that did not work, where the conversation goes on."""


class Terminal:
    """A person: thoughts are dim, calls and results are shown, lines can be edited and called back."""

    interactive = True

    def __init__(self) -> None:
        with contextlib.suppress(ImportError):  # not everywhere is there one
            import readline  # noqa: F401  (``input`` then edits lines, keeps a history, and follows a resize)
        self._shown = ""  # the kind of event that the cursor stands behind
        self._column = 0

    def ask(self, prompt: str) -> str | None:
        try:
            return input(prompt)
        except EOFError:
            click.echo()
            return None
        except UnicodeDecodeError:
            self.problem("that was no UTF-8; set the terminal to UTF-8")
            return ""

    def event(self, event: "ChatEvent") -> None:
        if event.kind == "thought" and self._shown != "thought":
            event = replace(event, text=event.text.lstrip("\n"))
            if not event.text:
                return
        if event.kind in ("call", "broken_call"):
            self._fresh_line()
            mark, colour = ("→", "cyan") if event.kind == "call" else ("✗", "red")
            click.echo(click.style(f"{mark} {plain(event.text)}", fg=colour))
        elif event.kind == "thought":
            self._write(event.text, dim=True)
        else:
            if self._shown == "thought":
                self._fresh_line()
            self._write(event.text)
        self._shown = event.kind

    def end(self, reply: "ChatReply", pace: str) -> None:
        self._fresh_line()
        self._shown = ""
        click.echo(click.style(f"[{pace}]", dim=True))

    def result(self, result: "ToolResult") -> None:
        click.echo(click.style(f"← {plain(result.content)}", fg="red" if result.failed else "green"))

    def note(self, text: str) -> None:
        click.echo(click.style(text, dim=True))

    def problem(self, text: str) -> None:
        click.echo(click.style(text, fg="red"), err=True)

    def _write(self, text: str, *, dim: bool = False) -> None:
        click.echo(click.style(plain(text), dim=True) if dim else plain(text), nl=False)
        self._column = 0 if text.endswith("\n") else 1

    def _fresh_line(self) -> None:
        if self._column:
            click.echo()
        self._column = 0


class Pipe:
    """A program: messages are lines of standard input; answers go to standard output, calls to standard error."""

    interactive = False

    def ask(self, prompt: str) -> str | None:
        line = sys.stdin.buffer.readline()
        if not line:
            return None
        try:
            return line.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise UsageError(
                f"standard input: byte {error.start} of a line is not UTF-8; convert the text to UTF-8"
            ) from None

    def event(self, event: "ChatEvent") -> None:
        if event.kind == "answer":
            click.echo(event.text, nl=False)
        elif event.kind != "thought":
            click.echo(f"{'→' if event.kind == 'call' else '✗'} {event.text}", err=True)

    def end(self, reply: "ChatReply", pace: str) -> None:
        if reply.text or not (reply.tool_calls or reply.broken_calls):
            click.echo()

    def result(self, result: "ToolResult") -> None:
        click.echo(f"← {result.content}", err=True)

    def note(self, text: str) -> None:
        """A program does not need it."""

    def problem(self, text: str) -> None:
        raise UsageError(text)


class JsonLines(Pipe):
    """A program that reads JSON: one line for each of the model's turns, and for each result."""

    def event(self, event: "ChatEvent") -> None:
        """Turns are printed when they are whole."""

    def end(self, reply: "ChatReply", pace: str) -> None:
        generation = reply.generation
        _print(
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
        _print({"result": result.content, "failed": result.failed})


def plain(text: str) -> str:
    """Text that only shows itself."""
    return text.translate(_CONTROLS)


def _print(document: dict[str, object]) -> None:
    utf8 = (getattr(sys.stdout, "encoding", None) or "").lower().replace("-", "") == "utf8"
    click.echo(json.dumps(document, ensure_ascii=not utf8))
