"""Continuous batching: requests join and leave a running batch between its steps."""

from collections import deque
from dataclasses import dataclass
from itertools import count
from typing import NamedTuple, Unpack

from ...errors import UsageError
from ...known_options import refuses_unknown_options
from ..decoding.decoder import open_decoder
from ..engine.session import Session
from ..sequence.options import Options
from ..sequence.request import RequestBuilder
from ..sequence.sequence import ActiveSequence, Generation
from ..text.prompts import Prompt
from .batch import Batch
from .exclusive import ExclusiveUse


class Event(NamedTuple):
    """A chunk of a request's text; the last one comes with the ``result``."""

    request: int
    text: str
    result: Generation | None


@dataclass(frozen=True)
class _Entry:
    """A submitted request."""

    number: int
    sequence: ActiveSequence


class Scheduler:
    """Continuous batching; made by ``TextGenerator.scheduler``.

    Any thread may submit requests; one thread at a time takes the steps. A waiting request is prefilled as soon as a
    slot is free, first come, first served; then each step decodes one token of every running request. The results do
    not depend on the other requests.
    """

    def __init__(self, session: Session, requests: RequestBuilder, slots: int, max_length: int) -> None:
        self._requests = requests
        self._slots = slots
        self._max_length = max_length
        self._batch: Batch | None = Batch(open_decoder(session, slots, 1, max_length))
        self._waiting: deque[_Entry] = deque()
        self._running: list[_Entry] = []
        self._numbers = count()
        self._cancelled: set[int] = set()
        self._use = ExclusiveUse("the scheduler", "open another one with TextGenerator.scheduler()")

    def __repr__(self) -> str:
        state = f"{len(self._running)} running, {len(self._waiting)} waiting"
        return f"<Scheduler of {self._slots} slots, {'closed' if self._use.closed else state}>"

    @refuses_unknown_options
    def submit(self, prompt: Prompt, **options: Unpack[Options]) -> int:
        """Queue a prompt; return the request number of its events. Any thread may call this, also during a step.

        Raises:
            PromptError, UsageError: as ``TextGenerator.generate``; or the scheduler is closed.
        """
        self._use.check_open()
        request = self._requests.request(**options)
        if request.beams is not None:
            raise UsageError("a scheduler has no beam search: give num_beams=1, or use TextGenerator.generate")
        if request.speculate or request.draft is not None:
            raise UsageError(
                "a batch does not speculate: leave out speculate and draft, or use generate for one prompt"
            )
        sequence = self._requests.sequence(prompt, request, "the prompt")
        if sequence.max_positions > self._max_length:
            raise UsageError(
                f"the prompt's {sequence.prompt.size:,} tokens and {sequence.limit:,} new ones are more than the "
                f"{self._max_length:,} of a slot; give fewer max_new_tokens, or the scheduler a larger max_length"
            )
        entry = _Entry(next(self._numbers), sequence)
        self._waiting.append(entry)
        return entry.number

    def cancel(self, request: int) -> None:
        """Cancel a request: it has no events from the next step on. Any thread may call this."""
        self._cancelled.add(request)

    @property
    def busy(self) -> bool:
        """True while a request is waiting or running."""
        return bool(self._waiting or self._running)

    def step(self) -> list[Event]:
        """Prefill waiting requests and decode one token of every running one; return the events.

        Raises:
            PromptError: there is not enough memory for the cache; the requests that were running are lost.
            UsageError: another thread is in a step, or the scheduler is closed.
        """
        with self._use.acquired():
            batch = self._batch
            assert batch is not None  # it is None only where the scheduler is closed
            try:
                self._remove_cancelled(batch)
                events: list[Event] = []
                while self._waiting and batch.free:
                    entry = self._waiting.popleft()
                    if entry.number in self._cancelled:
                        continue
                    events += _events(entry, batch.join(entry.sequence))
                    if entry.sequence.finish_reason is None:
                        self._running.append(entry)
                entries = {id(entry.sequence): entry for entry in self._running}
                for sequence, chunk in batch.step():
                    events += _events(entries[id(sequence)], chunk)
            except BaseException:
                batch.clear()
                self._running = []
                raise
            self._running = [entry for entry in self._running if entry.sequence.finish_reason is None]
            return events

    def close(self) -> None:
        """Release the cache. Requests that are waiting or running are dropped."""
        self._use.closed = True
        self._waiting.clear()
        self._running = []
        self._batch = None

    def __enter__(self) -> "Scheduler":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _remove_cancelled(self, batch: Batch) -> None:
        """Remove the running requests that have been cancelled."""
        for entry in self._running:
            if entry.number in self._cancelled:
                batch.leave(entry.sequence)
        self._running = [entry for entry in self._running if entry.number not in self._cancelled]


def _events(entry: _Entry, chunk: str) -> list[Event]:
    """Return the event of a chunk; none where it is empty and not the last."""
    if entry.sequence.finish_reason is not None:
        return [Event(entry.number, chunk, entry.sequence.result())]
    return [Event(entry.number, chunk, None)] if chunk else []
