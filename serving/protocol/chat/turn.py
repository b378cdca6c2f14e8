"""A body of a chat completion as a turn of the runtime: the prompt, the options, and a parser for each choice."""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any, cast

from ....errors import ArtifactError, ConstraintError, IntaglioError
from ....runtime.chat.chat import ChatOptions, ChatParser, ChatTurn, prepare_turn
from ....runtime.generation.generator import TextGenerator
from ....runtime.sequence.options import Options
from ...errors import ApiError, refused
from ..prompts import check_length
from ..sampling import check_stream, sampling_options
from .body import ChatBody
from .messages import template_messages
from .pieces import Choice
from .response_format import set_constraint
from .thinking import template_variables
from .tools import calling


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
    options = cast(ChatOptions, sampling_options(body))
    _set_logprobs(body, options)
    _set_continuation(body, options)
    allowed = calling(body.tools, body.tool_choice)
    if allowed.tools:
        options["tools"] = allowed.tools
        options["tool_choice"] = allowed.choice
        options["strict_tools"] = allowed.strict
        options["parallel_tool_calls"] = body.parallel_tool_calls is not False
    set_constraint(body, options)
    if variables := template_variables(body, generator.chat_format):
        options["template_variables"] = variables
    turn = _rendered(name, generator, body, options)
    _check_names(body, turn.prompt)
    turn.options["max_new_tokens"] = _new_tokens(body, len(turn.tokens), most, generator.defaults.values)
    most_calls = 1 if body.parallel_tool_calls is False else None
    return Turn(turn.tokens, turn.options, body.n or 1, turn.parser, most_calls)


def _set_logprobs(body: ChatBody, options: ChatOptions) -> None:
    if body.logprobs:
        options["logprobs"] = body.top_logprobs or 0
    elif body.top_logprobs:
        raise ApiError("top_logprobs needs logprobs true; give both", param="top_logprobs")


def _set_continuation(body: ChatBody, options: ChatOptions) -> None:
    """Set whose text the model continues: its own next turn, or the last message."""
    if not body.continue_final_message:
        if body.add_generation_prompt is False:
            raise ApiError(
                "add_generation_prompt: false leaves no turn to write; leave it out, or give continue_final_message",
                param="add_generation_prompt",
            )
        return
    reason = None
    if body.add_generation_prompt:
        reason = "it excludes add_generation_prompt; give one of them"
    elif body.messages[-1].role != "assistant":
        reason = "the last message is not the assistant's; leave it out, or add one"
    elif body.messages[-1].tool_calls:
        reason = "the last message has tool_calls, and its text cannot go on after them; leave one of them out"
    if reason is not None:
        raise ApiError(f"continue_final_message: {reason}", param="continue_final_message")
    options["continue_final_message"] = True


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
        raise refused(error, "tools" if isinstance(error, ConstraintError) else "messages") from None


def _check_names(body: ChatBody, prompt: str) -> None:
    """Check that the model sees who has written a message; the names of tools come from their calls."""
    for index, message in enumerate(body.messages):
        if message.name is not None and message.role != "tool" and message.name not in prompt:
            param = f"messages[{index}].name"
            raise ApiError(
                f"{param}: the model's chat template does not show names; write it into the content", param=param
            )


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
