"""What is known about the HTTP request that is being answered, for the access log and for limits by client."""

import time
from contextvars import ContextVar
from dataclasses import dataclass, field


@dataclass
class HttpRecord:
    """One HTTP request. The middleware makes it, and whoever answers fills it in.

    Attributes:
        id: the request's id, which the answer has in ``x-request-id``.
        client: a hash of the API key, by which limits count; empty where the server has no keys.
        model: the model's name.
        prompt_tokens, cached_tokens, tokens: sums over the choices of the request.
        first_token: when the first token was there, in ``time.monotonic``.
        outcomes: of the choices, as in ``RequestRecord``.
    """

    id: str = ""
    client: str = ""
    model: str | None = None
    prompt_tokens: int = 0
    cached_tokens: int = 0
    tokens: int = 0
    first_token: float | None = None
    outcomes: list[str] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)


_current: ContextVar[HttpRecord | None] = ContextVar("http_record", default=None)


def current() -> HttpRecord:
    """Return the record of the request that is being answered; outside of one, a record that nobody reads."""
    return _current.get() or HttpRecord()


def begin(record: HttpRecord) -> None:
    """Make a record the current one, for this task and those that it starts."""
    _current.set(record)
