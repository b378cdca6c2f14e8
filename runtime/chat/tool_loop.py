"""The tool loop: the model calls, we answer, until it says something without calling.

    run = run_tools(lm.chat, [{"role": "user", "content": "Weather in Seoul?"}], [get_weather])
    run.reply.text, run.messages, run.results

What a tool raises, and calls that cannot be carried out, are told to the model as ``{"error": ...}``.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...errors import UsageError
from .chat import ChatReply
from .template import Message
from .tool_calls import BrokenToolCall, ToolCall
from .tool_schema import Schema, schema_of

Function = Callable[..., Any]
Chat = Callable[..., ChatReply]


@dataclass(frozen=True)
class ToolResult:
    """A call, and what the model was told: the function's result as text, or the error."""

    call: ToolCall | BrokenToolCall
    content: str
    failed: bool

    @property
    def message(self) -> dict[str, Any]:
        named = {"name": self.call.name} if isinstance(self.call, ToolCall) else {}
        return {"role": "tool", **named, "content": self.content}


@dataclass(frozen=True)
class ToolRun:
    """How a tool loop went. ``messages`` is the whole history, the reply included.

    ``finished`` is False where the model still called tools in the last round.
    """

    reply: ChatReply
    messages: list[dict[str, Any]]
    results: tuple[ToolResult, ...]
    finished: bool


def run_tools(
    chat: Chat,
    messages: Sequence[Message],
    tools: Mapping[str, Function] | Sequence[Function],
    *,
    max_rounds: int = 8,
    on_result: Callable[[ToolResult], object] | None = None,
    **options: Any,
) -> ToolRun:
    """Chat until a reply calls no tool.

    Args:
        chat: ``TextGenerator.chat``, or whatever takes messages and ``tools`` and gives a ``ChatReply``.
        tools: functions with type hints and docstrings, or such functions under other names.
        max_rounds: how many turns the model has.
        on_result: hears each result as it comes.
        options: handed on to ``chat``.

    Raises:
        UsageError: fewer than one round, two tools of one name, a function that cannot be described.
    """
    if max_rounds < 1:
        raise UsageError(f"max_rounds must be at least 1, not {max_rounds}")
    functions = by_name(tools)
    schemas = describe(functions)
    history = [dict(message) for message in messages]
    results: list[ToolResult] = []
    for _ in range(max_rounds):
        reply = chat(history, tools=schemas, **options)
        history.append(reply.message)
        answered = answer_calls(reply, functions, on_result)
        results += answered
        if not answered:
            return ToolRun(reply, history, tuple(results), finished=True)
        history += [result.message for result in answered]
    return ToolRun(reply, history, tuple(results), finished=False)


def by_name(tools: Mapping[str, Function] | Sequence[Function]) -> dict[str, Function]:
    """The functions under the names that the model calls them by.

    Raises:
        UsageError: two of one name.
    """
    if isinstance(tools, Mapping):
        return dict(tools)
    found: dict[str, Function] = {}
    for function in tools:
        name = getattr(function, "__name__", type(function).__name__)
        if name in found:
            raise UsageError(f"there are two tools named {name!r}; give a mapping of names to functions")
        found[name] = function
    return found


def describe(functions: Mapping[str, Function]) -> list[Schema]:
    """The functions' schemas.

    Raises:
        UsageError: a function that cannot be described.
    """
    schemas = []
    for name, function in functions.items():
        schema = schema_of(function)
        schema["function"]["name"] = name
        schemas.append(schema)
    return schemas


def answer_calls(
    reply: ChatReply,
    functions: Mapping[str, Function],
    on_result: Callable[[ToolResult], object] | None = None,
) -> list[ToolResult]:
    """Carry out a reply's calls in their order; then tell what is wrong with the broken ones."""
    results = []
    calls: list[ToolCall | BrokenToolCall] = [*reply.tool_calls, *reply.broken_calls]
    for call in calls:
        result = broken(call) if isinstance(call, BrokenToolCall) else carry_out(call, functions[call.name])
        if on_result is not None:
            on_result(result)
        results.append(result)
    return results


def carry_out(call: ToolCall, function: Function) -> ToolResult:
    """Call the function. Whatever it raises becomes the content."""
    try:
        return ToolResult(call, as_content(function(**call.arguments)), failed=False)
    except Exception as error:
        return ToolResult(call, as_content({"error": f"{type(error).__name__}: {error}"}), failed=True)


def broken(call: BrokenToolCall) -> ToolResult:
    """What the model is told about a call that cannot be carried out."""
    return ToolResult(call, as_content({"error": call.reason}), failed=True)


def as_content(value: Any) -> str:
    """A tool's result as the text of a message: text as it is, other values as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
