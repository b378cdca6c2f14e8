"""A body of a chat completion as a turn of the runtime: the prompt, the options, and a parser for each choice."""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any, cast

from ....errors import ArtifactError, IntaglioError
from ....runtime.chat.chat import RESERVED, ChatOptions, ChatParser, ChatTurn, prepare_turn
from ....runtime.generation.generator import TextGenerator
from ....runtime.sequence.options import Options
from ...errors import ApiError, refused
from ..prompts import check_length
from ..sampling import check_stream, sampling_options
from .body import ChatBody
from .messages import template_messages
from .pieces import Choice
from .tools import calling

REASONING = ("enable_thinking", "reasoning_effort")
"""Variables by which templates are told how much to think."""


@dataclass(frozen=True)
class Turn:
    """A turn that is ready for the engine.

    Attributes:
        tokens: of the prompt.
        options: of the runtime.
        count: how many choices there are.
        parser: of the text; each choice has a copy.
        most_calls: the calls after which a choice ends; None for any number.
    """

    tokens: list[int]
    options: Options
    count: int
    parser: ChatParser
    most_calls: int | None

    def choices(self) -> list[Choice]:
        """Return the choices, of which nothing has been generated."""
        return [Choice(deepcopy(self.parser), self.most_calls) for _ in range(self.count)]


def chat_turn(name: str, generator: TextGenerator, most: int, body: ChatBody) -> Turn:
    """Return the turn of a body. It renders the chat template and tokenizes the prompt, so it takes a while.

    Args:
        name: the model's.
        most: the tokens of prompt and continuation together that a request may have.

    Raises:
        ApiError: something that cannot be honoured; it names the parameter.
    """
    check_stream(body)
    if not generator.chat_format.templates:
        raise ApiError(f"the model {name!r} has no chat template; use /v1/completions", param="model")
    allowed = calling(body.tools, body.tool_choice)
    if allowed.forced:
        raise ApiError("tool_choice: the server cannot force calls yet; give 'auto'", param="tool_choice")
    if body.response_format is not None and body.response_format.type != "text":
        raise ApiError(
            "response_format: the server cannot constrain answers yet; leave it out", param="response_format"
        )
    options = cast(ChatOptions, sampling_options(body))
    if allowed.tools:
        options["tools"] = allowed.tools
    if variables := _variables(body, generator):
        options["template_variables"] = variables
    if body.continue_final_message:
        if body.add_generation_prompt:
            raise ApiError(
                "add_generation_prompt and continue_final_message exclude each other; give one of them",
                param="continue_final_message",
            )
        if body.messages[-1].role != "assistant":
            raise ApiError(
                "continue_final_message: the last message is not the assistant's; leave it out, or add one",
                param="continue_final_message",
            )
        options["continue_final_message"] = True
    elif body.add_generation_prompt is False:
        raise ApiError(
            "add_generation_prompt false leaves nobody's turn to write; leave it out, or give continue_final_message",
            param="add_generation_prompt",
        )
    if body.logprobs:
        options["logprobs"] = body.top_logprobs or 0
    elif body.top_logprobs:
        raise ApiError("top_logprobs needs logprobs true; give both", param="top_logprobs")
    turn = _rendered(name, generator, body, options)
    turn.options["max_new_tokens"] = _new_tokens(body, len(turn.tokens), most, generator.defaults.values)
    most_calls = 1 if body.parallel_tool_calls is False else None
    return Turn(turn.tokens, turn.options, body.n or 1, turn.parser, most_calls)


def _rendered(name: str, generator: TextGenerator, body: ChatBody, options: ChatOptions) -> ChatTurn:
    """Return the runtime's turn; its errors name the model, not its folder."""
    chat_format = replace(generator.chat_format, name=f"the model {name!r}")
    context = generator.manifest.model.context_length
    messages = template_messages(body.messages)
    try:
        return prepare_turn(chat_format, generator.tokenizer, messages, options, context)
    except ArtifactError as error:  # the template fails on these messages, or takes too much time or memory for them
        raise ApiError(str(error), param="messages") from None
    except IntaglioError as error:
        raise refused(error, "messages") from None


def _new_tokens(body: ChatBody, prompt: int, most: int, defaults: Mapping[str, Any]) -> int:
    """Return how many tokens may follow the prompt's.

    What a body does not say, the checkpoint's settings do; else the turn may be as long as there is room for.
    """
    wanted, param = body.max_completion_tokens, "max_completion_tokens"
    if wanted is None:
        wanted, param = body.max_tokens, "max_tokens"
    elif body.max_tokens not in (None, wanted):
        raise ApiError(
            f"max_tokens is {body.max_tokens} and max_completion_tokens is {wanted}; give only the latter",
            param="max_tokens",
        )
    check_length(prompt, wanted, most, "the conversation", param, "messages")
    if wanted is None:
        wanted = defaults.get("max_new_tokens") or max(1, defaults.get("max_length", most) - prompt)
    return min(most - prompt, int(wanted))


def _variables(body: ChatBody, generator: TextGenerator) -> dict[str, Any]:
    """Return the variables of the template.

    Raises:
        ApiError: one that the template does not read, so that it would have no effect.
    """
    variables = dict(body.chat_template_kwargs or {})
    reads = generator.chat_format.reads
    tools = bool(body.tools)
    for name, value in variables.items():
        param = f"chat_template_kwargs.{name}"
        if name in RESERVED:
            raise ApiError(f"{param}: the server sets it from the request itself; leave it out", param=param)
        # A model that does not think obeys enable_thinking false.
        if not reads(name, with_tools=tools) and not (name == "enable_thinking" and value is False):
            raise ApiError(f"{param}: the model's chat template does not read it; leave it out", param=param)
    if (effort := body.reasoning_effort) is None:
        return variables
    if given := [name for name in REASONING if name in variables]:
        raise ApiError(
            f"reasoning_effort: chat_template_kwargs has {given[0]} as well; give one of them", param="reasoning_effort"
        )
    if reads("reasoning_effort", with_tools=tools):
        return {**variables, "reasoning_effort": effort}
    if reads("enable_thinking", with_tools=tools):
        return {**variables, "enable_thinking": effort != "none"}
    if effort == "none":
        return variables
    raise ApiError(
        "reasoning_effort: the model's chat template has no way to ask for a thought; leave it out, or give 'none'",
        param="reasoning_effort",
    )
