"""Prompts and inputs as OpenAI's endpoints take them: a text, token ids, or a list of either."""

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from ...runtime.text.prompts import Prompt
from ..errors import ApiError

MOST_INPUTS = 2048
"""How many texts a call may have, as OpenAI counts them."""

TokenIds = Annotated[list[int], Field(min_length=1)]
Inputs = (
    str
    | Annotated[list[str], Field(min_length=1, max_length=MOST_INPUTS)]
    | TokenIds
    | Annotated[list[TokenIds], Field(min_length=1, max_length=MOST_INPUTS)]
)


def as_prompts(given: str | Sequence[str] | Sequence[int] | Sequence[Sequence[int]]) -> list[Prompt]:
    """Return the prompts of a call as a list; a single text, or its token ids, is a list of one."""
    if isinstance(given, str):
        return [given]
    if isinstance(given[0], int):
        return [[one for one in given if isinstance(one, int)]]
    return [one for one in given if not isinstance(one, int)]


def check_length(tokens: int, new_tokens: int, longest: int, name: str, param: str) -> None:
    """Check that a prompt and its continuation have room.

    Args:
        longest: the most tokens of a request.
        name: the prompt's name in the message.
        param: the parameter that is the number of new tokens.

    Raises:
        ApiError: they have not.
    """
    if tokens + new_tokens > longest:
        raise ApiError(
            f"{name} has {tokens:,} tokens and {param} is {new_tokens:,}, together more than the {longest:,} that a "
            f"request may have; shorten the prompt, or give a smaller {param}",
            param=param if tokens < longest else "prompt",
            code="context_length_exceeded",
        )
