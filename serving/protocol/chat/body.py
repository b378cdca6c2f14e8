"""The body of a chat completion."""

from typing import Annotated, Any, Literal

from pydantic import Field

from ...forms import Body, few, unsupported
from ..completions import StructuredOutputs
from ..sampling import SamplingBody
from .messages import MOST_MESSAGES, Message
from .tools import MOST_TOOLS, Tool, ToolChoice

Identifier = Annotated[str, Field(max_length=512)]


class JsonSchema(Body):
    """A schema that the answer must fit."""

    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
    description: str | None = None
    schema_: Annotated[dict[str, Any] | None, Field(alias="schema")] = None
    strict: bool | None = None


class ResponseFormat(Body):
    """The form of the answer."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class ChatBody(SamplingBody):
    """A chat completion.

    These say how a service is run or accounted, have no effect on an answer, and are accepted: ``metadata``,
    ``safety_identifier``, ``prompt_cache_key``, ``prompt_cache_retention`` (prompts are shared by all requests),
    ``service_tier`` "auto" or "default" and ``store`` false (nothing is stored).

    ``chat_template_kwargs``, ``add_generation_prompt``, ``continue_final_message`` and ``structured_outputs`` are
    vLLM's.
    """

    messages: Annotated[list[Message], Field(min_length=1, max_length=MOST_MESSAGES)]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    tools: Annotated[list[Tool], Field(max_length=MOST_TOOLS)] | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    chat_template_kwargs: Annotated[dict[str, Any], few(32)] | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    modalities: Annotated[list[Literal["text"]], Field(max_length=1)] | None = None
    metadata: Annotated[dict[str, Annotated[str, Field(max_length=512)]], few(16)] | None = None
    store: Literal[False] | None = None
    service_tier: Literal["auto", "default"] | None = None
    safety_identifier: Identifier | None = None
    prompt_cache_key: Identifier | None = None
    prompt_cache_retention: Literal["in_memory", "in-memory", "24h"] | None = None
    functions: Annotated[Any, unsupported("give tools instead")] = None
    function_call: Annotated[Any, unsupported("give tool_choice instead")] = None
    audio: Annotated[Any, unsupported("the model writes text; leave it out")] = None
    prediction: Annotated[Any, unsupported("leave it out; the answer is the same without it")] = None
    web_search_options: Annotated[Any, unsupported("give a tool that searches instead")] = None
    verbosity: Annotated[Any, unsupported("say in a message how long the answer should be")] = None
