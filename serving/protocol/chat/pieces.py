"""One choice of a chat while it is generated: the engine's events to pieces of the turn.

The pieces are neutral: chat completions and responses dress them. Joined, they are the turn, whether it is streamed or
not.
"""

import json
from dataclasses import dataclass, field
from typing import Literal

from ....runtime.chat.chat import ChatEvent, ChatParser
from ....runtime.chat.tool_call import ToolCall
from ....runtime.generation.events import Event
from ....runtime.sequence.logprobs import TokenLogprob
from ..answers import FINISH_REASONS, new_id
from .open_call import OpenCall


@dataclass(frozen=True)
class Thought:
    """Some text of the thought."""

    text: str


@dataclass(frozen=True)
class Answer:
    """Some text of the answer, and the log-probabilities of its tokens where they were requested."""

    text: str
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True)
class CallBegins:
    """A call of a tool: its position among the turn's calls, its id and the tool's name."""

    index: int
    id: str
    name: str


@dataclass(frozen=True)
class CallArguments:
    """Some text of the arguments of a call, which are JSON."""

    index: int
    text: str


@dataclass(frozen=True)
class Ended:
    """The turn has ended, with OpenAI's reason."""

    reason: str


Piece = Thought | Answer | CallBegins | CallArguments | Ended


@dataclass
class Counts:
    """Numbers of tokens: those generated, those of them in the thought, and those of the prompt that were cached."""

    completion: int = 0
    reasoning: int = 0
    cached: int = 0


@dataclass
class Choice:
    """Splits the events of one continuation into pieces.

    Space at both ends of the thought is left out, and so is space at the end of the answer of a turn with calls.
    Arguments of a call come as they are written where a grammar makes it fit its tool, and whole otherwise. A call that
    turns out to be broken is text of the answer.

    Args:
        parser: a fresh one, for this choice alone.
        most_calls: the calls after which the turn ends; None for any number.
    """

    parser: ChatParser
    most_calls: int | None = None
    counts: Counts = field(default_factory=Counts)
    ended: bool = False
    _begun: int = 0  # calls
    _complete: int = 0
    _open: OpenCall = field(default_factory=OpenCall)
    _last: Literal["thought", "answer"] | None = None
    _space: str = ""  # held back: it may turn out to be the end of what it is in
    _logprobs: list[TokenLogprob] = field(default_factory=list)  # of tokens whose text is held back

    def push(self, event: Event) -> list[Piece]:
        """Return the pieces of an event; none after the turn has ended."""
        if self.ended:
            return []
        thinking = self.parser.in_thought
        events = self.parser.push(event.text)
        thinking = thinking or self.parser.in_thought or any(one.kind == "thought" for one in events)
        self.counts.completion += len(event.token_ids)
        self.counts.reasoning += len(event.token_ids) if thinking else 0
        self.counts.cached = event.cached_tokens
        if not thinking and not self._between(event.text):
            self._logprobs += event.logprobs or ()
        pieces: list[Piece] = []
        for one in events:
            pieces += self._pieces(one)
            if self._complete == self.most_calls:
                return [*pieces, self._end("stop")]
        if (text := self.parser.certain_call) is not None:
            pieces += self._call(text)
        if event.result is None:
            return pieces
        if event.result.finish_reason == "eos":
            self._logprobs = self._logprobs[:-1]
        for one in self.parser.flush():
            pieces += self._pieces(one)
        if self._last == "answer" and not self._begun:
            pieces += self._answer("", final=True)
        return [*pieces, self._end(FINISH_REASONS[event.result.finish_reason])]

    def _between(self, text: str) -> bool:
        """Return True for space between the thought and the answer."""
        return not text.strip() and self.parser.has_thought and self._last != "answer"

    def _pieces(self, event: ChatEvent) -> list[Piece]:
        if isinstance(event.call, ToolCall):
            return self._whole_call(event.call)
        if event.call is not None and self._open.name is not None:  # cut off; its beginning has been passed on
            return []
        if event.kind == "thought":
            return self._thought(event.text)
        # The client sees a broken call as the model wrote it.
        return self._answer(event.text if event.call is None else event.call.text)

    def _whole_call(self, call: ToolCall) -> list[Piece]:
        self._complete += 1
        if self.parser.constrained:  # as it is written, in however many chunks it comes
            pieces, self._open = self._call(call.text), OpenCall()
            return pieces
        return [*self._begin(call.name), self._arguments(json.dumps(call.arguments, ensure_ascii=False))]

    def _call(self, text: str) -> list[Piece]:
        """Return what is new in the text of the open call."""
        named = self._open.name is not None
        arguments = self._open.push(text)
        begin = [] if named or self._open.name is None else self._begin(self._open.name)
        return [*begin, *([self._arguments(arguments)] if arguments else [])]

    def _begin(self, name: str) -> list[Piece]:
        self._logprobs = []
        self._begun += 1
        return [CallBegins(self._begun - 1, new_id("call_"), name)]

    def _arguments(self, text: str) -> CallArguments:
        return CallArguments(self._begun - 1, text)

    def _thought(self, text: str) -> list[Piece]:
        self._logprobs = []
        text = self._space + text if self._last == "thought" else text.lstrip()
        if not text:
            return []
        self._last, shown = "thought", text.rstrip()
        self._space = text[len(shown) :]
        return [Thought(shown)] if shown else []

    def _answer(self, text: str, *, final: bool = False) -> list[Piece]:
        text = self._space + text if self._last == "answer" else text
        shown = text.rstrip() if self.parser.has_tools and not final else text
        self._last, self._space = "answer", text[len(shown) :]
        if not shown:
            return []
        logprobs, self._logprobs = tuple(self._logprobs), []
        return [Answer(shown, logprobs)]

    def _end(self, reason: str) -> Ended:
        self.ended = True
        called = self._begun > 0 and self._complete == self._begun
        return Ended("tool_calls" if called and reason == "stop" else reason)
