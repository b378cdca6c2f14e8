"""The tool loop: execute the model's tool calls and return the results to it, until a reply has no calls.

    run = run_tools(lm.chat, [{"role": "user", "content": "Weather in Seoul?"}], [get_weather])
    run.reply.text, run.messages, run.results

The model receives exceptions of tools, and calls that cannot be executed, as ``{"error": ...}``.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...errors import UsageError
from ...files.chat.messages import Message
from ...files.chat.tool_schema import Schema, function_of, schema_of
from ...known_options import check_options, option_names
from .chat import ChatReply
from .tool_call import BrokenToolCall, ToolCall

ToolFunction = Callable[..., Any]
ChatFunction = Callable[..., ChatReply]


@dataclass(frozen=True)
class ToolResult:
    """A call and its content for the model: the function's result as text, or the error."""

    call: ToolCall | BrokenToolCall
    content: str
    failed: bool

    @property
    def message(self) -> dict[str, Any]:
        """The result as a message of the history."""
        name = {"name": self.call.name} if isinstance(self.call, ToolCall) else {}
        return {"role": "tool", **name, "content": self.content}


@dataclass(frozen=True)
class ToolRun:
    """The outcome of a tool loop.

    Attributes:
        reply: the model's last turn.
        messages: the whole history, the reply included.
        results: the results of all calls, in order.
        finished: False if the model still called tools in the last round, or one that has no function.
    """

    reply: ChatReply
    messages: list[dict[str, Any]]
    results: tuple[ToolResult, ...]
    finished: bool


def run_tools(
    chat: ChatFunction,
    messages: Sequence[Message],
    tools: Mapping[str, ToolFunction] | Sequence[ToolFunction | Mapping[str, Any]],
    *,
    max_rounds: int = 8,
    on_result: Callable[[ToolResult], object] | None = None,
    **options: Any,
) -> ToolRun:
    """Chat until a reply has no tool calls.

    Args:
        chat: ``TextGenerator.chat``, or another function that takes messages and ``tools`` and returns a ``ChatReply``.
        tools: functions with type hints, in a list or as a mapping from the names the model uses. A list may also have
            JSON schemas: one with the name of a function describes that function, instead of its docstring. A call of a
            tool that has no function ends the run; append its result to ``messages`` and go on.
        max_rounds: the largest number of turns of the model.
        on_result: called with each result.
        options: passed to ``chat``.

    Raises:
        UsageError: fewer than one round, two tools of one name, a function without a schema, or an option that neither
            this function nor ``chat`` has.
    """
    if (known := option_names(chat)) is not None:
        check_options("run_tools", options, [*known, "max_rounds", "on_result"])
    if max_rounds < 1:
        raise UsageError(f"max_rounds must be at least 1, not {max_rounds}")
    functions, schemas = functions_and_schemas(tools)
    history = [dict(message) for message in messages]
    results: list[ToolResult] = []
    rounds = 0
    while True:
        reply = chat(history, tools=schemas, **options)
        rounds += 1
        history.append(reply.message)
        new_results = execute_calls(reply, functions, on_result)
        results += new_results
        history += [result.message for result in new_results]
        is_left = any(call.name not in functions for call in reply.tool_calls)
        if not new_results or is_left or rounds == max_rounds:
            return ToolRun(reply, history, tuple(results), finished=not new_results and not is_left)


def functions_and_schemas(
    tools: Mapping[str, ToolFunction] | Sequence[ToolFunction | Mapping[str, Any]],
) -> tuple[dict[str, ToolFunction], list[Schema]]:
    """Return the functions by the names that the model uses, and the schemas of all tools.

    Raises:
        UsageError: two functions or two schemas have the same name, or a tool has no schema (``schema_of``).
    """
    if isinstance(tools, Mapping):
        if not all(map(callable, tools.values())):
            raise UsageError("tools is a mapping, and not of names to functions; give a list of schemas and functions")
        return dict(tools), function_schemas(tools)
    functions: dict[str, ToolFunction] = {}
    given: dict[str, Schema] = {}
    for tool in tools:
        name = str(function_of(tool)["name"] if isinstance(tool, Mapping) else _name(tool))
        if name in (given if isinstance(tool, Mapping) else functions):
            raise UsageError(f"there are two tools named {name!r}; give a mapping of names to functions")
        if isinstance(tool, Mapping):
            given[name] = dict(tool)
        else:
            functions[name] = tool
    made = {name: function for name, function in functions.items() if name not in given}
    return functions, [*function_schemas(made), *given.values()]


def _name(function: ToolFunction) -> str:
    return getattr(function, "__name__", type(function).__name__)


def function_schemas(functions: Mapping[str, ToolFunction]) -> list[Schema]:
    """Return each function's schema, under its name in ``functions``.

    Raises:
        UsageError: a function has no schema (``schema_of``).
    """
    schemas = []
    for name, function in functions.items():
        schema = schema_of(function)
        schema["function"]["name"] = name
        schemas.append(schema)
    return schemas


def execute_calls(
    reply: ChatReply,
    functions: Mapping[str, ToolFunction],
    on_result: Callable[[ToolResult], object] | None = None,
) -> list[ToolResult]:
    """Execute a reply's calls in order, those that have a function; broken calls become errors, after the results."""
    results = []
    known = [call for call in reply.tool_calls if call.name in functions]
    calls: list[ToolCall | BrokenToolCall] = [*known, *reply.broken_calls]
    for call in calls:
        result = call_error(call) if isinstance(call, BrokenToolCall) else execute(call, functions[call.name])
        if on_result is not None:
            on_result(result)
        results.append(result)
    return results


def execute(call: ToolCall, function: ToolFunction) -> ToolResult:
    """Call the function; an exception becomes an error for the model."""
    try:
        return ToolResult(call, to_content(function(**call.arguments)), failed=False)
    except Exception as error:
        return ToolResult(call, to_content({"error": f"{type(error).__name__}: {error}"}), failed=True)


def call_error(call: BrokenToolCall) -> ToolResult:
    """Return the error that the model receives for a call that cannot be executed."""
    return ToolResult(call, to_content({"error": call.reason}), failed=True)


def to_content(value: Any) -> str:
    """Return a tool's result as the content of a message: text unchanged, other values as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
