"""The body of ``/v1/responses``."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag

from ...forms import Body, few
from ..chat.body import Identifier
from ..chat.messages import MOST_MESSAGES
from ..chat.tools import MOST_TOOLS
from ..sampling import Sampling
from .items import Item
from .only import only

LOGPROBS = "message.output_text.logprobs"
MOST_METADATA = 16

Metadata = Annotated[
    dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]], few(MOST_METADATA)
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
    tools: Annotated[list[NamedFunction], Field(max_length=MOST_TOOLS)]


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


class ResponsesBody(Sampling):
    """A request for a response. ``user`` and its like are for the client's own records."""

    input: str | Annotated[list[Item], Field(min_length=1, max_length=MOST_MESSAGES)]
    instructions: str | None = None
    tools: Annotated[list[FunctionTool], Field(max_length=MOST_TOOLS)] | None = None
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
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    include: (
        Annotated[
            list[
                Annotated[
                    str,
                    only(
                        LOGPROBS,
                        reason=f"only {LOGPROBS!r} can be included; reasoning items have plain text",
                    ),
                ]
            ],
            Field(max_length=16),
        ]
        | None
    ) = None
    stream_options: StreamOptions | None = None
    metadata: Metadata | None = None
    chat_template_kwargs: Annotated[dict[str, Any], few(32)] | None = None
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
    safety_identifier: Identifier | None = None
    prompt_cache_key: Identifier | None = None
    prompt_cache_retention: Literal["in_memory", "in-memory", "24h"] | None = None

    @property
    def wants_logprobs(self) -> bool:
        return LOGPROBS in (self.include or ())
