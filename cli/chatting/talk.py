"""The conversation of ``intaglio chat``: its history, its turns, and the commands that begin with a slash."""

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

ROUNDS = 8  # turns that a model may have with its tools before it must answer

HELP = """\
/reset       forget the conversation, but not the system message
/save FILE   write the conversation as JSON
/help        this list
/quit        end; so do Ctrl-D, and Ctrl-C twice
//text       a message that begins with a slash
Ctrl-C stops an answer."""


class Talk:
    """One conversation. A message that the model cannot take leaves the history as it was.

    Args:
        options: what every turn is asked with.
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
        self._beginning = [] if system is None else [{"role": "system", "content": system}]
        self.history: list[dict[str, Any]] = list(self._beginning)
        self._saved: Path | None = None
        self._commands: dict[str, Callable[[str], None]] = {
            "/reset": self._reset,
            "/save": self._save,
            "/help": lambda _: self._screen.note(HELP),
        }

    def run(self) -> None:
        """Until the messages end. At the prompt, Ctrl-C ends it if it comes twice in a row."""
        facts = self._model.manifest
        self._screen.note(f"{self._artifact}: {facts.family}, {facts.precision}; /help lists what you can type")
        interrupted = False
        while True:
            try:
                line = self._screen.ask("> ")
                if line is None:
                    return
                interrupted = False
                word, _, rest = line.strip().partition(" ")
                if word == "/quit":
                    return
                if word in self._commands:
                    self._commands[word](rest.strip())
                elif line.startswith("/") and not line.startswith("//") and self._screen.interactive:
                    self._screen.note(f"{word} is no command; /help lists them, and //text sends /text")
                elif line.strip():
                    interrupted = not self._turn(line[1:] if line.startswith("//") else line)
            except KeyboardInterrupt:
                if interrupted:
                    return
                interrupted = True
                self._screen.note("\nCtrl-C again ends the conversation")

    def _turn(self, content: str) -> bool:
        """The message and what the model makes of it; False where it was interrupted."""
        start = len(self.history)
        self.history.append({"role": "user", "content": content})
        try:
            for _ in range(ROUNDS):
                reply, whole = self._reply()
                said = reply.text or reply.thought or reply.tool_calls or reply.broken_calls
                if whole or (said and not reply.tool_calls):
                    self.history.append(reply.message)
                elif len(self.history) == start + 1:
                    del self.history[start:]  # nothing was said: the question does not count either
                if not whole:
                    return False
                results = self._answer(reply)
                if not results:
                    return True
                self.history += [result.message for result in results]
            self._screen.note(f"It called tools {ROUNDS} times without an answer, and was not asked again.")
        except KeyboardInterrupt:
            del self.history[start:]  # between a call and its result
            self._screen.note("\n(stopped; the message is forgotten)")
            return False
        except InputError as error:
            del self.history[start:]
            if not self._screen.interactive:
                raise
            self._screen.problem(f"{error}; /reset forgets the conversation")
        return True

    def _reply(self) -> tuple["ChatReply", bool]:
        """The model's next turn as far as it came, and whether that is the whole."""
        began = time.monotonic()
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
        self._screen.end(stream.reply, _pace(stream.reply, began, first, time.monotonic()))
        return stream.reply, True

    def _answer(self, reply: "ChatReply") -> list["ToolResult"]:
        from ...runtime.chat.tool_loop import ToolResult, as_content, broken, carry_out

        results = []
        for call in reply.tool_calls:
            function = self._toolbox.functions.get(call.name)
            if function is not None:
                result = carry_out(call, function)
            else:
                typed = self._screen.ask(f"{call} = ")
                if typed is None:
                    raise InputError(f"the messages ended before the result of {call}; give it on a line of its own")
                result = ToolResult(call, as_content(typed), failed=False)
            results.append(result)
        results += [broken(call) for call in reply.broken_calls]
        for result in results:
            self._screen.result(result)
        return results

    def _reset(self, _: str) -> None:
        self.history = list(self._beginning)
        self._screen.note("The conversation is forgotten.")

    def _save(self, name: str) -> None:
        path = Path(name).expanduser()
        if not name:
            self._screen.problem("/save needs a file; write /save FILE")
        elif path.exists() and path != self._saved:
            self._screen.problem(f"{path} exists; choose another name")
        else:
            document = {"artifact": self._artifact, "messages": self.history}
            try:
                path.write_text(json.dumps(document, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
            except OSError as error:
                self._screen.problem(f"{path}: cannot be written ({error.strerror}); choose another file")
                return
            self._saved = path
            self._screen.note(f"{len(self.history)} messages in {path}")


def _pace(reply: "ChatReply", began: float, first: float, ended: float) -> str:
    """``37 tokens, 31.2 tokens/s, 0.15 s to the first``"""
    generation = reply.generation
    count = len(generation.token_ids) if generation is not None else 0
    parts = [f"{count} token" + "s" * (count != 1)]
    if count > 1 and first and ended > first:
        parts += [f"{(count - 1) / (ended - first):.3g} tokens/s", f"{first - began:.2f} s to the first"]
    if generation is not None and generation.finish_reason == "length":
        parts.append("cut off by the limit")
    return ", ".join(parts)
