"""The parameters that every endpoint of generation has, and the options of the runtime that they become."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from ...runtime.sequence.options import Options
from ..errors import ApiError
from ..forms import Body, few

MOST_CHOICES = 128
MOST_STOPS = 16
MOST_BIASES = 1024

StopString = Annotated[str, Field(min_length=1, max_length=1000)]
TokenId = Annotated[str, Field(pattern=r"^[0-9]{1,9}$")]


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class StreamOptions(Body):
    """``stream_options``."""

    include_usage: bool = False
    include_obfuscation: Literal[False] | None = None


class Sampling(Body):
    """How to choose tokens. What is left out is as the model's generation_config.json says.

    ``top_k``, ``min_p``, ``repetition_penalty``, ``min_tokens`` and ``ignore_eos`` are vLLM's additions to OpenAI's
    parameters. ``user`` is for the client's own records.
    """

    model: str | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=100)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    logit_bias: Annotated[dict[TokenId, Annotated[float, Field(ge=-100, le=100)]] | None, few(MOST_BIASES)] = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: Annotated[list[StopString] | None, Field(max_length=MOST_STOPS), BeforeValidator(_listed)] = None
    min_tokens: Annotated[int, Field(ge=0)] | None = None
    ignore_eos: bool | None = None
    stream: bool | None = None
    user: str | None = None


class SamplingBody(Sampling):
    """The parameters that completions and chat completions share."""

    n: Annotated[int, Field(ge=1, le=MOST_CHOICES)] | None = None
    stream_options: StreamOptions | None = None


def sampling_options(body: Sampling) -> Options:
    """Return the options of the runtime for a body's sampling parameters."""
    options: Options = {
        "temperature": body.temperature,
        "top_p": body.top_p,
        "top_k": None if body.top_k is None else max(body.top_k, 0),
        "min_p": body.min_p,
        "repetition_penalty": body.repetition_penalty,
        "presence_penalty": body.presence_penalty,
        "frequency_penalty": body.frequency_penalty,
        "logit_bias": body.logit_bias,
        # A seed may be negative in the protocol, and not in the runtime.
        "seed": None if body.seed is None else body.seed % (1 << 64),
        "stop": body.stop,
        "min_new_tokens": body.min_tokens,
    }
    if body.ignore_eos:
        options["eos_token_id"] = []
    return options


def check_stream(body: SamplingBody) -> None:
    """Check that the options of a stream are given for one.

    Raises:
        ApiError: they are not.
    """
    if body.stream_options is not None and not body.stream:
        raise ApiError("stream_options is for a stream; give stream=true, or leave it out", param="stream_options")
