"""Continuous batching: requests join and leave a running batch between its steps."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import NamedTuple, Unpack

from ...errors import UsageError
from ..decoding.decoder import open_decoder
from ..engine.session import Session
from ..sequence.generation import Generation, generation
from ..sequence.options import Options
from ..sequence.request import Planner, positions
from ..sequence.sequence import Row
from ..text.prompts import Prompt
from .batch import Batch
from .exclusive import Guard


class Event(NamedTuple):
    """What a step gave to a request: a piece of its text, and with the last one the ``result``."""

    request: int
    text: str
    result: Generation | None


@dataclass
class _Request:
    number: int
    row: Row
    pieces: list[str] = field(default_factory=list)


class Scheduler:
    """Made by ``TextGenerator.scheduler``. Requests come from any thread; one thread at a time takes the steps.

    A waiting request is prefilled as soon as a slot is free, first come, first served; then a step gives each running
    one a token. None of them changes what another one gets.
    """

    def __init__(self, session: Session, planner: Planner, slots: int, most: int) -> None:
        self._planner = planner
        self._slots = slots
        self._most = most
        self._batch: Batch | None = Batch(open_decoder(session, slots, min(most, 1), most))
        self._waiting: deque[_Request] = deque()
        self._running: list[_Request] = []
        self._numbers = count()
        self._cancelled: set[int] = set()
        self._guard = Guard("the scheduler", "open another one with TextGenerator.scheduler()")

    def __repr__(self) -> str:
        state = f"{len(self._running)} running, {len(self._waiting)} waiting"
        return f"<Scheduler of {self._slots} slots, {'closed' if self._guard.closed else state}>"

    def submit(self, prompt: Prompt, **options: Unpack[Options]) -> int:
        """Queue a prompt; the number that its events will carry. Any thread may do so, between steps and during one.

        Raises:
            PromptError, UsageError: as ``TextGenerator.generate``; or the scheduler is closed.
        """
        self._guard.check()
        plan = self._planner.plan(**options)
        if plan.speculate or plan.draft is not None:
            raise UsageError(
                "a batch does not speculate: leave out speculate and draft, or use generate for one prompt"
            )
        row = self._planner.row(prompt, plan, "the prompt")
        if positions(row) > self._most:
            raise UsageError(
                f"the prompt's {row.prompt.size:,} tokens and {row.limit:,} new ones are more than the {self._most:,} "
                "of a slot; give fewer max_new_tokens, or the scheduler a larger max_length"
            )
        request = _Request(next(self._numbers), row)
        self._waiting.append(request)
        return request.number

    def cancel(self, request: int) -> None:
        """Forget a request: from the next step on there are no more events of it. Any thread may do so."""
        self._cancelled.add(request)

    @property
    def busy(self) -> bool:
        """Whether a request is waiting or running."""
        return bool(self._waiting or self._running)

    def step(self) -> list[Event]:
        """Let waiting requests join, and every running one generate a token; what that gave. Empty when there are none.

        Raises:
            PromptError: memory for the cache is not to be had; the requests that were running are lost.
            UsageError: another thread takes a step, or the scheduler is closed.
        """
        with self._guard.held():
            batch = self._batch
            assert batch is not None  # or it would be closed
            try:
                self._forget(batch)
                events: list[Event] = []
                while self._waiting and batch.free:
                    request = self._waiting.popleft()
                    if request.number in self._cancelled:
                        continue
                    events += self._hear(request, batch.join(request.row))
                    if request.row.finish_reason is None:
                        self._running.append(request)
                known = {id(request.row): request for request in self._running}
                for row, piece in batch.step():
                    events += self._hear(known[id(row)], piece)
            except BaseException:
                batch.clear()
                self._running = []
                raise
            self._running = [request for request in self._running if request.row.finish_reason is None]
            return events

    def close(self) -> None:
        """Let the cache go. Requests that are waiting or running are given up."""
        self._guard.closed = True
        self._waiting.clear()
        self._running = []
        self._batch = None

    def __enter__(self) -> "Scheduler":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _forget(self, batch: Batch) -> None:
        """Let the running requests go that have been cancelled."""
        for request in self._running:
            if request.number in self._cancelled:
                batch.leave(request.row)
        self._running = [request for request in self._running if request.number not in self._cancelled]

    def _hear(self, request: _Request, piece: str) -> list[Event]:
        request.pieces.append(piece)
        row = request.row
        if row.finish_reason is not None:
            return [Event(request.number, piece, generation(row, "".join(request.pieces)))]
        return [Event(request.number, piece, None)] if piece else []


def run(batch: Batch, rows: list[Row], finish: Callable[[int, str], None]) -> None:
    """Generate all rows, as many together as the batch has room for; ``finish`` hears the index and text of each."""
    texts: list[list[str]] = [[] for _ in rows]
    index_of = {id(row): index for index, row in enumerate(rows)}
    waiting = deque(rows)

    def hear(row: Row, piece: str) -> None:
        index = index_of[id(row)]
        texts[index].append(piece)
        if row.finish_reason is not None:
            finish(index, "".join(texts[index]))

    while waiting or batch.running:
        while waiting and batch.free:
            row = waiting.popleft()
            hear(row, batch.join(row))
        for row, piece in batch.step():
            hear(row, piece)
