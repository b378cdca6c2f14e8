"""A response: the object that is returned, and that the first and the last event of a stream have."""

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

from ....runtime.text.tokenizer import Tokenizer
from ...errors import ApiError
from ..answers import new_id, now
from ..chat.pieces import Answer, CallArguments, CallBegins, Ended, Piece, Thought
from ..logprobs import chat_logprob
from .body import ResponsesBody
from .output import Event, Output


class ResponseInProgress:
    """A response from its first event to its last.

    Args:
        model: the name under which the server has the model.
        tokenizer: the model's.
    """

    def __init__(self, body: ResponsesBody, model: str, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._logprobs = body.wants_logprobs
        self._output = Output()
        self._finish_reason: str | None = None
        self._count = 0  # of the events
        self._values = _echoed(body) | {
            "id": new_id("resp_"),
            "object": "response",
            "created_at": now(),
            "completed_at": None,
            "model": model,
            "status": "in_progress",
            "error": None,
            "incomplete_details": None,
            "output": self._output.items,
            "usage": None,
        }

    def begin(self) -> list[Event]:
        """Return the first events."""
        return self._numbered([self._state("response.created"), self._state("response.in_progress")])

    def add(self, piece: Piece) -> list[Event]:
        """Add a piece of the turn; return its events."""
        match piece:
            case Thought(text):
                return self._numbered(self._output.thought(text))
            case Answer(text, logprobs):
                entries = [chat_logprob(entry, self._tokenizer) for entry in logprobs] if self._logprobs else None
                return self._numbered(self._output.text(text, entries))
            case CallBegins(_, call_id, name):
                return self._numbered(self._output.call(call_id, name))
            case CallArguments(_, text):
                return self._numbered(self._output.arguments(text))
            case Ended(reason):
                self._finish_reason = reason
        return []

    def end(self, usage: dict[str, Any]) -> list[Event]:
        """Return the last events, with chat's counts of tokens."""
        complete = self._finish_reason != "length"
        status = "completed" if complete else "incomplete"
        events = self._output.close(status)
        self._values |= {"status": status, "usage": _usage(usage), "completed_at": now() if complete else None}
        if not complete:
            self._values["incomplete_details"] = {"reason": "max_output_tokens"}
        return self._numbered([*events, self._state(f"response.{status}")])

    def fail(self, error: ApiError) -> list[Event]:
        """Return the last events of a response that failed after its first ones."""
        events = self._output.close("incomplete")
        self._values |= {"status": "failed", "error": {"code": "server_error", "message": error.message}}
        return self._numbered([*events, self._state("response.failed")])

    def _numbered(self, events: Sequence[Event]) -> list[Event]:
        """Return events with their place in the stream."""
        first = self._count
        self._count += len(events)
        return [event | {"sequence_number": first + index} for index, event in enumerate(events)]

    def _state(self, kind: str) -> Event:
        return {"type": kind, "response": deepcopy(self._values)}


def _echoed(body: ResponsesBody) -> dict[str, Any]:
    """Return what a response says of its request, in OpenAI's form."""
    choice = body.tool_choice or "auto"
    given = body.model_dump(by_alias=True, exclude_none=True, exclude={"input", "tools", "tool_choice"})
    tools = [
        {"type": "function", "name": tool.name, "description": tool.description}
        | {"parameters": tool.parameters, "strict": tool.strict}
        for tool in body.tools or ()
    ]
    names = ("instructions", "max_output_tokens", "temperature", "top_p", "user", "safety_identifier")
    return {name: given.get(name) for name in (*names, "prompt_cache_key")} | {
        "background": False,
        "metadata": body.metadata or {},
        "parallel_tool_calls": body.parallel_tool_calls is not False,
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None} | given.get("reasoning", {}),
        "service_tier": "default",
        "store": False,
        "text": {"format": {"type": "text"}} | given.get("text", {}),
        "tool_choice": choice if isinstance(choice, str) else choice.model_dump(),
        "tools": tools,
        "top_logprobs": body.top_logprobs or 0,
        "truncation": "disabled",
    }


def _usage(usage: dict[str, Any]) -> dict[str, Any]:
    """Return chat's counts of tokens by the names of a response."""
    cached = usage.get("prompt_tokens_details", {}).get("cached_tokens", 0)
    reasoning = usage.get("completion_tokens_details", {}).get("reasoning_tokens", 0)
    return {
        "input_tokens": usage["prompt_tokens"],
        "input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": 0},
        "output_tokens": usage["completion_tokens"],
        "output_tokens_details": {"reasoning_tokens": reasoning},
        "total_tokens": usage["total_tokens"],
    }
