"""Prompts and inputs as OpenAI's endpoints take them: a text, token ids, or a list of either."""

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from ...runtime.text.prompts import Prompt
from ..errors import ApiError

MOST_INPUTS = 2048
"""How many texts a call may have, as OpenAI counts them."""

TokenIds = Annotated[list[int], Field(min_length=1)]


def _not_too_many(value: Any) -> Any:
    """Refuse too many texts before the members of the union do, whose messages would be about their types."""
    if isinstance(value, list) and len(value) > MOST_INPUTS and not isinstance(value[0], int):
        raise ValueError(f"it has {len(value):,} texts, and {MOST_INPUTS:,} are the most of one call; send several")
    return value


Inputs = Annotated[
    str | Annotated[list[str], Field(min_length=1)] | TokenIds | Annotated[list[TokenIds], Field(min_length=1)],
    BeforeValidator(_not_too_many),
]


def as_prompts(given: str | Sequence[int] | Sequence[Prompt]) -> list[Prompt]:
    """Return the prompts of a call as a list; a single text, or its token ids, is a list of one."""
    if isinstance(given, str):
        return [given]
    if isinstance(given[0], int):
        return [[one for one in given if isinstance(one, int)]]
    return [one for one in given if not isinstance(one, int)]


def check_length(
    tokens: int, new_tokens: int | None, longest: int, name: str, param: str, prompt_param: str = "prompt"
) -> None:
    """Check that a prompt and its continuation have room.

    Args:
        new_tokens: None where the request does not say how many; there must be room for one.
        longest: the most tokens of a request.
        name: the prompt's name in the message.
        param, prompt_param: the parameters that the number of new tokens and the prompt are from.

    Raises:
        ApiError: they have not.
    """
    if new_tokens is None and tokens >= longest:
        raise ApiError(
            f"{name} has {tokens:,} tokens, and a request may have {longest:,} with those of the answer; shorten it",
            param=prompt_param,
            code="context_length_exceeded",
        )
    if new_tokens is not None and tokens + new_tokens > longest:
        raise ApiError(
            f"{name} has {tokens:,} tokens and {param} is {new_tokens:,}, together more than the {longest:,} that a "
            f"request may have; shorten the prompt, or give a smaller {param}",
            param=param if tokens < longest else prompt_param,
            code="context_length_exceeded",
        )
