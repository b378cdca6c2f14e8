"""``/v1/completions``: the body, its checks, and the options of the runtime that it becomes."""

from typing import Annotated, Any

from pydantic import Field

from ...runtime.sequence.options import Options
from ..errors import ApiError
from ..forms import Body
from .prompts import Inputs, as_prompts
from .sampling import SamplingBody, check_stream, sampling_options

MOST_LOGPROBS = 20
DEFAULT_MAX_TOKENS = 16  # OpenAI's


class StructuredOutputs(Body):
    """``structured_outputs``, as vLLM has it: what the whole text must match; one of them."""

    json_schema: Annotated[str | dict[str, Any] | None, Field(alias="json")] = None
    regex: str | None = None
    grammar: str | None = None


class CompletionBody(SamplingBody):
    """The body of ``/v1/completions``."""

    prompt: Inputs
    max_tokens: Annotated[int, Field(ge=0)] | None = None
    echo: bool | None = None
    logprobs: Annotated[int, Field(ge=0, le=MOST_LOGPROBS)] | None = None
    best_of: int | None = None
    suffix: str | None = None
    structured_outputs: StructuredOutputs | None = None

    @property
    def new_tokens(self) -> int:
        """The most tokens of a continuation."""
        return DEFAULT_MAX_TOKENS if self.max_tokens is None else self.max_tokens

    @property
    def choices(self) -> int:
        """How many continuations each prompt has."""
        return 1 if self.n is None else self.n

    @property
    def scores_prompts(self) -> bool:
        """True where the log-probabilities of the prompts' tokens are part of the answer."""
        return bool(self.echo) and self.logprobs is not None


def check(body: CompletionBody, most: int) -> None:
    """Check what the form alone does not.

    Args:
        most: how many continuations the server makes for one call.

    Raises:
        ApiError: names the parameter.
    """
    check_stream(body)
    if body.suffix is not None:
        raise ApiError("suffix is not supported: the models continue a text; leave it out", param="suffix")
    if body.best_of is not None and body.best_of != body.choices:
        raise ApiError(
            f"best_of={body.best_of} is not supported: every continuation is an answer; leave it out, and give n",
            param="best_of",
        )
    if body.new_tokens == 0 and not body.echo:
        raise ApiError("max_tokens must be at least 1; 0 is for echo=true, which gives the prompt", param="max_tokens")
    count = len(as_prompts(body.prompt)) * body.choices
    if count > most:
        raise ApiError(
            f"the call asks for {count:,} continuations, and {most:,} are the most at once; give fewer prompts or n",
            param="prompt",
        )


def options(body: CompletionBody) -> Options:
    """Return the options of the runtime."""
    found = sampling_options(body)
    found["max_new_tokens"] = body.new_tokens
    found["logprobs"] = body.logprobs
    if body.structured_outputs is not None:
        found["json_schema"] = body.structured_outputs.json_schema
        found["regex"] = body.structured_outputs.regex
        found["grammar"] = body.structured_outputs.grammar
    return found
