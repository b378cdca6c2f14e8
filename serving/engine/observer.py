"""What the engine tells about its requests, for metrics, logs and traces."""

import time
from dataclasses import dataclass, field
from typing import Protocol


@dataclass
class RequestRecord:
    """One request to the engine, with times of ``time.monotonic``; zero and None are "not yet"."""

    model: str
    prompt_tokens: int
    arrived: float = field(default_factory=time.monotonic)
    started: float | None = None
    """When it got a slot."""
    first_token: float | None = None
    last_token: float | None = None
    tokens: int = 0
    cached_tokens: int = 0
    outcome: str | None = None
    """A finish reason of ``Generation``, or "cancelled", "error" or "timeout"."""


class Observer(Protocol):
    """Receives news of requests; called on the event loop, so it must be quick."""

    def tokens(self, record: RequestRecord, count: int, now: float) -> None:
        """``count`` tokens of a request are there; the record still has the times of the tokens before them."""
        ...

    def finished(self, record: RequestRecord, now: float) -> None:
        """A request has ended, whatever its outcome."""
        ...

    def refused(self, model: str, reason: str) -> None:
        """A request was not admitted; ``reason`` is the code of the error, such as ``queue_full``."""
        ...


class Silent:
    """An observer that does nothing."""

    def tokens(self, record: RequestRecord, count: int, now: float) -> None:
        pass

    def finished(self, record: RequestRecord, now: float) -> None:
        pass

    def refused(self, model: str, reason: str) -> None:
        pass
