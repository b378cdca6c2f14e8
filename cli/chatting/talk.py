"""The conversation of ``intaglio chat``: its history, its turns, and the slash commands."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import InputError
from .screen import Screen
from .toolfile import Toolbox

if TYPE_CHECKING:
    from ...runtime import ChatReply, TextGenerator
    from ...runtime.chat.tool_loop import ToolResult

MAX_ROUNDS = 8  # turns of the model for one message; each may call tools

HELP = """\
/reset       clear the conversation, except the system message
/save FILE   write the conversation as JSON
/help        show this list
/quit        end; so do Ctrl-D, and Ctrl-C twice
//text       a message that begins with a slash
Ctrl-C stops an answer."""


class Talk:
    """One conversation. A message that the model cannot take is removed from the history.

    Args:
        system: the system message, if there is one.
        options: options of every turn (``TextGenerator.stream_chat``).
    """

    def __init__(
        self,
        model: "TextGenerator",
        screen: Screen,
        artifact: str,
        system: str | None,
        toolbox: Toolbox,
        options: dict[str, Any],
    ) -> None:
        self._model = model
        self._screen = screen
        self._artifact = artifact
        self._toolbox = toolbox
        self._options = options
        self._initial = [] if system is None else [{"role": "system", "content": system}]
        self.history: list[dict[str, Any]] = list(self._initial)
        self._saved: Path | None = None
        self._commands: dict[str, Callable[[str], None]] = {
            "/reset": self._reset,
            "/save": self._save,
            "/help": lambda _: self._screen.note(HELP),
        }

    def run(self) -> None:
        """Read messages until they end. At the prompt, Ctrl-C twice in a row ends the conversation."""
        manifest = self._model.manifest
        self._screen.note(f"{self._artifact}: {manifest.family}, {manifest.precision}; /help lists the commands")
        interrupted = False
        while True:
            try:
                line = self._screen.ask("> ")
                if line is None:
                    return
                interrupted = False
                # In a pipe, a line is a message whatever it begins with: its author may not be who runs the command.
                if line.startswith("/") and self._screen.interactive and not line.startswith("//"):
                    word, _, rest = line.strip().partition(" ")
                    if word == "/quit":
                        return
                    self._command(word, rest.strip())
                elif line.strip():
                    message = line[1:] if line.startswith("//") and self._screen.interactive else line
                    interrupted = not self._turn(message)
            except KeyboardInterrupt:
                if interrupted:
                    return
                interrupted = True
                self._screen.note("\npress Ctrl-C again to end the conversation")

    def _command(self, word: str, rest: str) -> None:
        if word in self._commands:
            self._commands[word](rest)
        else:
            self._screen.note(f"{word} is not a command; /help lists the commands, and //text sends /text")

    def _turn(self, content: str) -> bool:
        """Send a message and show the reply, tool calls included; return False if it was interrupted."""
        start = len(self.history)
        self.history.append({"role": "user", "content": content})
        try:
            for _ in range(MAX_ROUNDS):
                reply, complete = self._read_reply()
                has_content = reply.text or reply.thought or reply.tool_calls or reply.broken_calls
                if complete or (has_content and not reply.tool_calls):
                    self.history.append(reply.message)
                elif len(self.history) == start + 1:
                    del self.history[start:]  # the reply is empty: remove the message as well
                if not complete:
                    return False
                results = self._execute_calls(reply)
                if not results:
                    return True
                self.history += [result.message for result in results]
            self._screen.note(f"The model called tools in {MAX_ROUNDS} turns without an answer; the turn ends here.")
        except KeyboardInterrupt:
            del self.history[start:]  # a call without its result cannot stay in the history
            self._screen.note("\n(stopped; the message is removed)")
            return False
        except InputError as error:
            del self.history[start:]
            if not self._screen.interactive:
                raise
            self._screen.problem(f"{error}; /reset clears the conversation")
        return True

    def _read_reply(self) -> tuple["ChatReply", bool]:
        """Show the model's next turn; return it and True, or what there is of it and False if it was interrupted."""
        started = time.monotonic()
        first = 0.0
        stream = self._model.stream_chat(self.history, tools=self._toolbox.schemas, **self._options)
        try:
            for event in stream:
                first = first or time.monotonic()
                self._screen.event(event)
        except KeyboardInterrupt:
            stream.close()
            self._screen.end(stream.reply, "stopped")
            return stream.reply, False
        self._screen.end(stream.reply, _speed(stream.reply, started, first, time.monotonic()))
        return stream.reply, True

    def _execute_calls(self, reply: "ChatReply") -> list["ToolResult"]:
        from ...runtime.chat.tool_loop import ToolResult, call_error, execute, to_content

        results = []
        for call in reply.tool_calls:
            function = self._toolbox.functions.get(call.name)
            if function is not None:
                result = execute(call, function)
            else:
                typed = self._screen.ask(f"{call} = ")
                if typed is None:
                    raise InputError(
                        f"standard input ended before the result of {call}; give the result on a line of its own"
                    )
                result = ToolResult(call, to_content(typed), failed=False)
            results.append(result)
        results += [call_error(call) for call in reply.broken_calls]
        for result in results:
            self._screen.result(result)
        return results

    def _reset(self, _: str) -> None:
        self.history = list(self._initial)
        self._screen.note("The conversation is empty again.")

    def _save(self, name: str) -> None:
        path = Path(name).expanduser()
        if not name:
            self._screen.problem("/save has no file; write /save FILE")
        elif path.exists() and path != self._saved:
            self._screen.problem(f"{path} exists; choose another name")
        else:
            document = {"artifact": self._artifact, "messages": self.history}
            try:
                text = json.dumps(document, ensure_ascii=False, indent=2) + "\n"
                path.write_text(text, encoding="utf-8", errors="backslashreplace")  # JSON's escape of half a character
            except OSError as error:
                self._screen.problem(f"{path}: cannot be written ({error.strerror}); choose another file")
                return
            self._saved = path
            self._screen.note(f"{len(self.history)} messages written to {path}")


def _speed(reply: "ChatReply", started: float, first: float, ended: float) -> str:
    """Return ``37 tokens, 31.2 tokens/s, 0.15 s to the first``."""
    generation = reply.generation
    count = len(generation.token_ids) if generation is not None else 0
    parts = [f"{count} token" + "s" * (count != 1)]
    if count > 1 and first and ended > first:
        parts += [f"{(count - 1) / (ended - first):.3g} tokens/s", f"{first - started:.2f} s to the first"]
    if generation is not None and generation.finish_reason == "length":
        parts.append("cut off by the token limit")
    elif generation is not None and generation.finish_reason == "time":
        parts.append("cut off by --max-time")
    return ", ".join(parts)
