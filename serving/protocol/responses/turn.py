"""The chat turn that a response asks for, and its errors in the names of the response."""

import re
from dataclasses import dataclass
from typing import Any

from ...errors import ApiError
from ..sampling import Sampling
from .body import (
    LOGPROBS,
    AllowedTools,
    FunctionTool,
    JsonFormat,
    NamedFunction,
    ResponsesBody,
    SchemaFormat,
    TextFormat,
)
from .items import messages_of

PARAMETERS = {
    r"^response_format(\.json_schema)?": "text.format",
    r"^reasoning_effort": "reasoning.effort",
    r"^max_completion_tokens": "max_output_tokens",
    r"^(tools\[\d+\]|tool_choice)\.(function|allowed_tools)": r"\1",
    r"^(tool_choice\.tools\[\d+\])\.function": r"\1",
}
"""The names of chat's parameters as regular expressions, and what they are here."""


@dataclass(frozen=True)
class Turn:
    """The body of ``/v1/chat/completions`` that asks for the same turn.

    Attributes:
        origins: for each message the position of its item, or None where it is not of one.
    """

    chat: dict[str, Any]
    origins: list[int | None]

    def parameter(self, name: str) -> str:
        """Return the parameter of the response for one of chat's."""
        if (found := re.match(r"messages\[(\d+)\]", name)) is not None:
            origin = self.origins[int(found[1])]
            return "input" if origin is None else f"input[{origin}]"
        if name == "messages":
            return "input"
        for chat, own in PARAMETERS.items():
            name = re.sub(chat, own, name)
        return name

    def error(self, error: ApiError) -> ApiError:
        """Return an error of the chat turn with the name that its parameter has here."""
        if error.param is None:
            return error
        param = self.parameter(error.param)
        message = (
            param + error.message.removeprefix(error.param) if error.message.startswith(error.param) else error.message
        )
        return ApiError(
            message,
            status=error.status,
            kind=error.kind,
            param=param,
            code=error.code,
            retry_after=error.retry_after,
        )


def turn_of(body: ResponsesBody) -> Turn:
    """Return the chat turn that a response asks for.

    Raises:
        ApiError: parameters that do not go together.
    """
    if body.top_logprobs is not None and not body.wants_logprobs:
        raise ApiError(f"top_logprobs needs include: ['{LOGPROBS}']; add it", param="top_logprobs")
    if body.stream_options is not None and not body.stream:
        raise ApiError("stream_options is for a stream; give stream=true, or leave it out", param="stream_options")
    messages: list[dict[str, Any]] = []
    origins: list[int | None] = []
    if body.instructions is not None:
        messages.append({"role": "system", "content": body.instructions})
        origins.append(None)
    if isinstance(body.input, str):
        messages.append({"role": "user", "content": body.input})
        origins.append(None)
    else:
        of_items, positions = messages_of(body.input)
        messages += of_items
        origins += positions
    return Turn(_chat(body) | {"messages": messages}, origins)


def _chat(body: ResponsesBody) -> dict[str, Any]:
    """Return the parameters of chat but the messages."""
    sampling = {name: getattr(body, name) for name in Sampling.model_fields if name not in ("stream", "user")}
    return sampling | {
        "tools": None if body.tools is None else [_tool(tool) for tool in body.tools],
        "tool_choice": _choice(body.tool_choice),
        "parallel_tool_calls": body.parallel_tool_calls,
        "response_format": None if body.text is None else _format(body.text.format),
        "reasoning_effort": None if body.reasoning is None else body.reasoning.effort,
        "max_completion_tokens": body.max_output_tokens,
        "logprobs": body.wants_logprobs or None,
        "top_logprobs": body.top_logprobs,
        "chat_template_kwargs": body.chat_template_kwargs,
    }


def _tool(tool: FunctionTool) -> dict[str, Any]:
    return {"type": "function", "function": tool.model_dump(exclude={"type"}, exclude_none=True)}


def _choice(choice: str | NamedFunction | AllowedTools | None) -> str | dict[str, Any] | None:
    if isinstance(choice, NamedFunction):
        return {"type": "function", "function": {"name": choice.name}}
    if isinstance(choice, AllowedTools):
        tools = [_choice(tool) for tool in choice.tools]
        return {"type": "allowed_tools", "allowed_tools": {"mode": choice.mode, "tools": tools}}
    return choice


def _format(format: TextFormat | JsonFormat | SchemaFormat | None) -> dict[str, Any] | None:
    if isinstance(format, SchemaFormat):
        schema = format.model_dump(exclude={"type"}, exclude_none=True, by_alias=True)
        return {"type": "json_schema", "json_schema": schema}
    return None if format is None else {"type": format.type}
