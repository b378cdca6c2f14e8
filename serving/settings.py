"""The settings of a server. The command line and Ray make them; every part of the server reads them."""

from dataclasses import dataclass, field
from pathlib import Path

KEPT_OUTPUTS = 16_384


@dataclass(frozen=True)
class Settings:
    """The settings of a server.

    Attributes:
        slots: how many requests a model decodes together.
        max_queue: how many more may wait; beyond that, requests are answered with 429.
        max_length: the most tokens of a request, prompt and continuation together; None for the model's context.
        prefill_tokens: about how many tokens of new prompts are read between two decode steps.
        kept_prompts: how many prompts stay in memory for those that begin alike.
        prompt_cache: the folder that keeps prompts when the server ends; None for none.
        max_loaded: how many artifacts are in memory at once; None for all.
        per_key: how many requests of one API key may wait or run; None for any number.
        request_timeout: seconds that a request may take, waiting included; None for any time.
        api_keys: the keys of which a request needs one; empty for none.
        allowed_origins: the origins of web pages that may call the server (CORS); empty for none.
        allowed_hosts: the names by which the server may be called, lower case and without ports; empty for any.
        max_body: bytes of a request's body.
        body_timeout: seconds in which a request must have arrived.
        write_timeout: seconds in which a client must have read what it is sent.
        max_connections: how many connections may be open at once.
        drain_timeout: seconds that running requests have to end when the server is told to.
        preload: load the models when the server starts, ``max_loaded`` of them, and not when they are first requested.
        otlp_endpoint: the address of an OpenTelemetry collector for spans; None for what OTEL_ variables say.
        log_contents: write prompts and answers to the log.
    """

    slots: int = 8
    max_queue: int = 64
    max_length: int | None = None
    prefill_tokens: int = 64
    kept_prompts: int = 4
    prompt_cache: Path | None = None
    max_loaded: int | None = None
    per_key: int | None = None
    request_timeout: float | None = None
    api_keys: tuple[str, ...] = field(default=(), repr=False)
    allowed_origins: tuple[str, ...] = ()
    allowed_hosts: tuple[str, ...] = ()
    max_body: int = 8 << 20
    body_timeout: float = 30.0
    write_timeout: float = 30.0
    max_connections: int = 512
    drain_timeout: float = 30.0
    preload: bool = False
    otlp_endpoint: str | None = None
    log_contents: bool = False

    @property
    def kept_outputs(self) -> int:
        """How many tokens of earlier answers guesses for later ones may come from.

        None where clients have different API keys: the time of an answer would tell that another one had it before.
        """
        return KEPT_OUTPUTS if len(self.api_keys) < 2 else 0

    def longest(self, context: int) -> int:
        """Return the most tokens of a request to a model with this context."""
        return min(self.max_length or context, context)
