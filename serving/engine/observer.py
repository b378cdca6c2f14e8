"""What the engine tells about its requests, for metrics, logs and traces."""

import time
from dataclasses import dataclass, field
from typing import Protocol

from ..record import HttpRecord, current


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
    http: HttpRecord = field(default_factory=current)
    """The HTTP request that it is a choice or a prompt of."""
    same_prompt: bool = False
    """Another choice of the same HTTP request has this prompt, and its tokens count once there."""

    def count(self, tokens: int, now: float) -> None:
        """Note tokens, here and in the HTTP request."""
        if self.first_token is None:
            self.first_token = now
            self.http.first_token = self.http.first_token or now
            self.http.cached_tokens += 0 if self.same_prompt else self.cached_tokens
        self.last_token = now
        self.tokens += tokens
        self.http.tokens += tokens

    def end(self, outcome: str) -> None:
        """Note the outcome, here and in the HTTP request."""
        self.outcome = outcome
        self.http.outcomes.append(outcome)


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
