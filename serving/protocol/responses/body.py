"""The body of ``/v1/responses``, and the chat turn that it asks for."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag

from ...errors import ApiError
from ...forms import Body
from .items import Item, messages_of
from .only import only

LOGPROBS = "message.output_text.logprobs"
MOST_METADATA = 16

Metadata = Annotated[
    dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]], Field(max_length=MOST_METADATA)
]


class FunctionTool(Body):
    """A function that the model may call."""

    type: Annotated[Literal["function"], only("function", reason="a tool is a function")]
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class NamedFunction(Body):
    """The function that the model must call, or one of those that it may call."""

    type: Literal["function"]
    name: str


class AllowedTools(Body):
    """Some of the tools: the model may call one of them (auto), or must (required)."""

    type: Literal["allowed_tools"]
    mode: Literal["auto", "required"]
    tools: list[NamedFunction]


class TextFormat(Body):
    """Any text."""

    type: Literal["text"]


class JsonFormat(Body):
    """A JSON object."""

    type: Literal["json_object"]


class SchemaFormat(Body):
    """JSON that fits a schema."""

    type: Literal["json_schema"]
    name: str
    schema_: Annotated[dict[str, Any], Field(alias="schema")]
    description: str | None = None
    strict: bool | None = None


class TextSettings(Body):
    """``text``."""

    format: Annotated[TextFormat | JsonFormat | SchemaFormat, Discriminator("type")] | None = None
    verbosity: Annotated[str | None, only("medium", reason="the model has one verbosity; leave it out")] = None


class ReasoningSettings(Body):
    """``reasoning``."""

    effort: str | None = None
    summary: Annotated[None, only(reason="thoughts are not summarized; the reasoning items have their text")] = None


class StreamOptions(Body):
    """``stream_options``."""

    include_obfuscation: Annotated[bool | None, only(False, reason="a stream has no obfuscation; give false")] = None


def _stateless(remedy: str) -> BeforeValidator:
    return only(False, reason=f"the server keeps no responses; {remedy}")


def _choice_kind(value: Any) -> str | None:
    return value.get("type") if isinstance(value, Mapping) else "mode"


class ResponsesBody(Body):
    """A request for a response. ``user`` and its like are for the client's own records."""

    model: str | None = None
    input: str | Annotated[list[Item], Field(min_length=1)]
    instructions: str | None = None
    tools: list[FunctionTool] | None = None
    tool_choice: (
        Annotated[
            Annotated[Literal["auto", "none", "required"], Tag("mode")]
            | Annotated[NamedFunction, Tag("function")]
            | Annotated[AllowedTools, Tag("allowed_tools")],
            Discriminator(
                _choice_kind,
                custom_error_type="unsupported_choice",
                custom_error_message="give auto, none, required, a function or allowed_tools",
            ),
        ]
        | None
    ) = None
    parallel_tool_calls: bool | None = None
    text: TextSettings | None = None
    reasoning: ReasoningSettings | None = None
    max_output_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    include: (
        list[
            Annotated[
                str,
                only(
                    LOGPROBS,
                    reason=f"only {LOGPROBS!r} can be included; reasoning items have their text, without encryption",
                ),
            ]
        ]
        | None
    ) = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    metadata: Metadata | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    store: Annotated[bool | None, _stateless("give store=false, and send the whole conversation as input")] = None
    background: Annotated[bool | None, _stateless("leave background out, and stream the response")] = None
    previous_response_id: Annotated[None, _stateless("send the whole conversation as input")] = None
    conversation: Annotated[None, _stateless("send the whole conversation as input")] = None
    truncation: Annotated[
        str | None,
        only("disabled", reason="the server does not shorten a conversation; give 'disabled', and fewer items"),
    ] = None
    service_tier: Annotated[str | None, only("auto", "default", reason="there is one service tier; leave it out")] = (
        None
    )
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None

    @property
    def wants_logprobs(self) -> bool:
        return LOGPROBS in (self.include or ())


def chat_values(body: ResponsesBody) -> dict[str, Any]:
    """Return the body of ``/v1/chat/completions`` that asks for the same turn.

    Raises:
        ApiError: parameters that do not go together.
    """
    if body.top_logprobs is not None and not body.wants_logprobs:
        raise ApiError(f"top_logprobs needs include: ['{LOGPROBS}']; add it", param="top_logprobs")
    if body.stream_options is not None and not body.stream:
        raise ApiError("stream_options is for a stream; give stream=true, or leave it out", param="stream_options")
    return {
        "model": body.model,
        "messages": messages_of(body.instructions, body.input),
        "tools": None if body.tools is None else [_chat_tool(tool) for tool in body.tools],
        "tool_choice": _chat_choice(body.tool_choice),
        "parallel_tool_calls": body.parallel_tool_calls,
        "response_format": None if body.text is None else _chat_format(body.text.format),
        "reasoning_effort": None if body.reasoning is None else body.reasoning.effort,
        "max_completion_tokens": body.max_output_tokens,
        "temperature": body.temperature,
        "top_p": body.top_p,
        "logprobs": body.wants_logprobs or None,
        "top_logprobs": body.top_logprobs,
        "chat_template_kwargs": body.chat_template_kwargs,
    }


def _chat_tool(tool: FunctionTool) -> dict[str, Any]:
    return {"type": "function", "function": tool.model_dump(exclude={"type"}, exclude_none=True)}


def _chat_choice(choice: str | NamedFunction | AllowedTools | None) -> str | dict[str, Any] | None:
    if isinstance(choice, NamedFunction):
        return {"type": "function", "function": {"name": choice.name}}
    if isinstance(choice, AllowedTools):
        tools = [_chat_choice(tool) for tool in choice.tools]
        return {"type": "allowed_tools", "allowed_tools": {"mode": choice.mode, "tools": tools}}
    return choice


def _chat_format(format: TextFormat | JsonFormat | SchemaFormat | None) -> dict[str, Any] | None:
    if isinstance(format, SchemaFormat):
        schema = format.model_dump(exclude={"type"}, exclude_none=True, by_alias=True)
        return {"type": "json_schema", "json_schema": schema}
    return None if format is None else {"type": format.type}


PARAMETERS: Mapping[str, str] = {
    r"^messages\b.*": "input",
    r"^response_format(\.json_schema)?": "text.format",
    r"^reasoning_effort": "reasoning.effort",
    r"^max_completion_tokens": "max_output_tokens",
    r"^(tools\[\d+\]|tool_choice)\.function": r"\1",
}
"""The names of chat's parameters as regular expressions, and what they are here."""


def parameter(name: str | None) -> str | None:
    """Return the parameter of a response that an error of the chat turn is about."""
    for chat, own in PARAMETERS.items():
        name = None if name is None else re.sub(chat, own, name)
    return name
