"""A chat completion: the pieces of its choices as chunks of a stream, or collected to one answer."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ....runtime.text.tokenizer import Tokenizer
from ..answers import new_id, now, usage
from ..logprobs import chat_logprob
from .pieces import Answer, CallArguments, CallBegins, Choice, Ended, Piece, Thought


@dataclass(frozen=True)
class Completion:
    """What all chunks of one completion share, and how they look.

    Args:
        model: the model's name.
        tokenizer: the model's.
        logprobs: show log-probabilities.
        with_usage: chunks have the key ``usage``, which is null but in the last one.
    """

    model: str
    tokenizer: Tokenizer
    logprobs: bool = False
    with_usage: bool = False
    id: str = field(default_factory=lambda: new_id("chatcmpl-"))
    created: int = field(default_factory=now)

    def begin(self, index: int) -> dict[str, Any]:
        """Return the first chunk of a choice."""
        return self._chunk(index, {"role": "assistant", "content": ""})

    def chunk(self, index: int, piece: Piece) -> dict[str, Any]:
        """Return the chunk of a piece of a choice."""
        if isinstance(piece, Ended):
            return self._chunk(index, {}, finish_reason=piece.reason)
        logprobs = self._logprobs(piece.logprobs) if isinstance(piece, Answer) and self.logprobs else None
        return self._chunk(index, delta(piece), logprobs=logprobs)

    def end(self, prompt: int, choices: Sequence[Choice]) -> dict[str, Any]:
        """Return the chunk after the last one, which has the usage."""
        return {**self._head("chat.completion.chunk"), "choices": [], "usage": usage_of(prompt, choices)}

    def whole(self, prompt: int, choices: Sequence[Choice], pieces: Sequence[Sequence[Piece]]) -> dict[str, Any]:
        """Return the completion; ``pieces`` has those of each choice."""
        return {
            **self._head("chat.completion"),
            "choices": [self._choice(index, one) for index, one in enumerate(pieces)],
            "usage": usage_of(prompt, choices),
        }

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}

    def _chunk(self, index: int, delta: dict[str, Any], **more: Any) -> dict[str, Any]:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": None, **more}
        usage = {"usage": None} if self.with_usage else {}
        return {**self._head("chat.completion.chunk"), "choices": [choice], **usage}

    def _choice(self, index: int, pieces: Sequence[Piece]) -> dict[str, Any]:
        """Return a whole choice."""
        reason = next((piece.reason for piece in pieces if isinstance(piece, Ended)), "stop")
        entries = [one for piece in pieces if isinstance(piece, Answer) for one in piece.logprobs]
        return {
            "index": index,
            "message": message(pieces),
            "logprobs": self._logprobs(entries) if self.logprobs else None,
            "finish_reason": reason,
        }

    def _logprobs(self, entries: Sequence[Any]) -> dict[str, Any]:
        return {"content": [chat_logprob(entry, self.tokenizer) for entry in entries], "refusal": None}


def delta(piece: Piece) -> dict[str, Any]:
    """Return what a piece adds to the message."""
    match piece:
        case Thought(text):
            return {"reasoning_content": text}
        case Answer(text):
            return {"content": text}
        case CallBegins(index, id, name):
            call = {"index": index, "id": id, "type": "function", "function": {"name": name, "arguments": ""}}
            return {"tool_calls": [call]}
        case CallArguments(index, text):
            return {"tool_calls": [{"index": index, "function": {"arguments": text}}]}
    return {}


def message(pieces: Sequence[Piece]) -> dict[str, Any]:
    """Return the message that pieces add up to; without text, its content is null where it has calls."""
    content = "".join(piece.text for piece in pieces if isinstance(piece, Answer))
    thought = "".join(piece.text for piece in pieces if isinstance(piece, Thought))
    calls: list[dict[str, Any]] = []
    for piece in pieces:
        if isinstance(piece, CallBegins):
            function = {"name": piece.name, "arguments": ""}
            calls.append({"id": piece.id, "type": "function", "function": function})
        elif isinstance(piece, CallArguments):
            calls[piece.index]["function"]["arguments"] += piece.text
    found: dict[str, Any] = {"role": "assistant", "content": content or (None if calls else ""), "refusal": None}
    if thought:
        found["reasoning_content"] = thought
    if calls:
        found["tool_calls"] = calls
    return found


def usage_of(prompt: int, choices: Sequence[Choice]) -> dict[str, Any]:
    """Return the usage of all choices; the prompt counts once."""
    counts = [choice.counts for choice in choices]
    return usage(
        prompt,
        sum(one.completion for one in counts),
        counts[0].cached,
        sum(one.reasoning for one in counts),
    )
