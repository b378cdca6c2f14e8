"""A request of a scheduler, and the news of it."""

from dataclasses import dataclass
from typing import NamedTuple

from ..sequence.logprobs import TokenLogprob
from ..sequence.sequence import ActiveSequence, Generation
from .speculation import Rounds


class Event(NamedTuple):
    """News of a request: a chunk of its text, with the tokens since its last event.

    The last event of a request has its ``result``; or its ``error``, where a pass of the model failed.
    """

    request: int
    text: str
    result: Generation | None
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob, ...] | None = None
    error: Exception | None = None
    cached_tokens: int = 0
    """How many tokens of the prompt were not read again, since another request had read them."""


@dataclass
class Waiting:
    """A request that is ready to be added to the scheduler that made it, under its ``number``.

    ``rounds`` is how it is decoded while it runs alone; None for as in a batch.
    """

    number: int
    sequence: ActiveSequence
    rounds: Rounds | None
    reported: int = 0
    cached: int = 0
    began: float | None = None
    """When it got a slot, of ``time.monotonic``; None while it waits."""

    @property
    def prompt_tokens(self) -> int:
        return int(self.sequence.prompt.size)

    def event(self, chunk: str) -> list[Event]:
        """Return the event of a chunk; none where it is empty and not the last."""
        sequence = self.sequence
        ended = sequence.finish_reason is not None
        if not (chunk or ended):
            return []
        new = slice(self.reported, len(sequence.token_ids))
        self.reported = new.stop
        logprobs = None if sequence.logprobs is None else tuple(sequence.logprobs[new])
        result = sequence.result() if ended else None
        return [Event(self.number, chunk, result, tuple(sequence.token_ids[new]), logprobs, cached_tokens=self.cached)]

    def failed(self, error: Exception) -> Event:
        """Return the event of an error."""
        return Event(self.number, "", None, error=error, cached_tokens=self.cached)
