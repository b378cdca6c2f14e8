"""Continuous batching: requests join and leave a running batch between its steps."""

import threading
import time
from collections import deque
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Unpack

from ...artifact import ModelFacts
from ...errors import UsageError
from ...known_options import refuses_unknown_options
from ..decoding.decoder import open_decoder
from ..decoding.prefill import PREFILL_CHUNK, next_chunk, prefill_step
from ..engine.session import Session
from ..sequence.options import Options
from ..sequence.request import RequestBuilder
from ..text.prompts import Prompt
from .batch import Batch
from .events import Event, Waiting
from .exclusive import ExclusiveUse
from .guesses.suffix_lookup import CONTEXT, EarlierTexts
from .pace import Pace
from .prompt_files import PromptFiles
from .speculation import Rounds, SpeculationFor


class Scheduler:
    """Continuous batching; made by ``TextGenerator.scheduler``.

    Any thread may submit requests; one thread at a time takes the steps. A waiting request joins as soon as a slot is
    free, first come, first served. Each step reads some tokens of the joining prompts, and decodes one token of every
    running request, so that a long prompt does not stop the others (``pace.py``). A request that runs alone may get
    several tokens, by speculation, where ``TextGenerator.generate`` speculates. A prompt that begins as an earlier one
    is read from there on. The results do not depend on the other requests.
    """

    def __init__(
        self,
        session: Session,
        requests: RequestBuilder,
        speculation_for: SpeculationFor,
        slots: int,
        max_length: int,
        prefill_tokens: int,
        kept_prompts: int,
        prompt_cache: Path | None = None,
        earlier: EarlierTexts | None = None,
    ) -> None:
        self._facts: ModelFacts = session.manifest.model
        self._cache_bytes = session.cache_bytes
        self._requests = requests
        self._speculation_for = speculation_for
        self._slots = slots
        self._max_length = max_length
        self._prefill_tokens = prefill_tokens
        self._pace = Pace(prefill_tokens)
        files = None if prompt_cache is None else PromptFiles(prompt_cache, session)
        decoder = open_decoder(session, slots + kept_prompts, 1, max_length)
        shares = not self._facts.length_dependent_rope
        self._step = prefill_step(session)
        self._batch: Batch | None = Batch(decoder, slots, shares, files, self._step)
        self._earlier = earlier
        self._waiting: deque[Waiting] = deque()
        self._running: list[Waiting] = []
        self._numbers = count()
        self._cancelled: set[int] = set()
        self._changed = threading.Condition()
        self._use = ExclusiveUse("the scheduler", "open another one with TextGenerator.scheduler()")

    def __repr__(self) -> str:
        state = f"{self.running} running, {self.waiting} waiting"
        return f"<Scheduler of {self._slots} slots, {'closed' if self._use.closed else state}>"

    @refuses_unknown_options
    def submit(self, prompt: Prompt, **options: Unpack[Options]) -> int:
        """Queue a prompt; return the request number of its events. Any thread may call this, also during a step.

        Raises:
            PromptError, UsageError: as ``TextGenerator.generate``; or the scheduler is closed.
        """
        return self.add(self.prepare(prompt, **options))

    @refuses_unknown_options
    def prepare(self, prompt: Prompt, *, index: int = 0, repetition: int = 0, **options: Unpack[Options]) -> Waiting:
        """Return a request that ``add`` queues: its number is known before its first event. Errors as ``submit``.

        Args:
            index: the position of the prompt in a list.
            repetition: which of several continuations this is. With a seed, the tokens are those that
                ``TextGenerator.generate`` chooses there.
        """
        self._use.check_open()
        request = self._requests.request(**options)
        if request.beams is not None:
            raise UsageError("a scheduler has no beam search: give num_beams=1, or use TextGenerator.generate")
        if request.speculate or request.draft is not None:
            raise UsageError(
                "a batch does not speculate: leave out speculate and draft, or use generate for one prompt"
            )
        sequence = self._requests.sequence(prompt, request, "the prompt", index, repetition)
        if sequence.max_positions > self._max_length:
            raise UsageError(
                f"the prompt's {sequence.prompt.size:,} tokens and {sequence.limit:,} new ones are more than the "
                f"{self._max_length:,} of a slot; give fewer max_new_tokens, or the scheduler a larger max_length"
            )
        speculation = self._speculation_for(request, sequence.prompt.size, self._earlier)
        return Waiting(next(self._numbers), sequence, Rounds(sequence, speculation) if speculation else None)

    def add(self, request: Waiting) -> int:
        """Queue a request; return its number.

        Raises:
            UsageError: the scheduler is closed.
        """
        self._use.check_open()
        with self._changed:
            self._waiting.append(request)
            self._changed.notify_all()
        return request.number

    def memory_needed(self, more: Sequence[Waiting] = ()) -> int:
        """Return the bytes that the KV cache may still take for the requests that wait or run, and for ``more``.

        Memory that a slot has taken is used again, so that only what goes beyond counts. Any thread may ask.
        """
        batch = self._batch
        if batch is None:
            return 0
        with self._changed:
            entries = [*self._running, *self._waiting, *more]
        had = batch.longest
        lengths = [entry.sequence.max_positions for entry in entries]
        used = min(self._slots, len(entries))  # the first slots, always
        needed = self._beyond(lengths, had[:used])
        return needed + self._beyond([entry.prompt_tokens for entry in entries], had[self._slots :])

    def _beyond(self, lengths: list[int], had: list[int]) -> int:
        """Return the bytes beyond what slots have had, where the longest sequence comes to the slot that had least."""
        pairs = zip(sorted(lengths, reverse=True), sorted(had), strict=False)
        return sum(max(0, self._cache_bytes(length) - self._cache_bytes(before)) for length, before in pairs)

    def cancel(self, request: int) -> None:
        """Cancel a request: it has no events from the next step on. Any thread may call this."""
        with self._changed:
            self._cancelled.add(request)

    @property
    def running(self) -> int:
        """How many requests have a slot."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """How many requests wait for a slot."""
        return len(self._waiting)

    @property
    def cache_usage(self) -> float:
        """The part of the slots' positions that running requests fill, 0 to 1. Any thread may ask."""
        tokens = sum(int(entry.sequence.prompt.size) + len(entry.sequence.token_ids) for entry in tuple(self._running))
        return tokens / (self._slots * self._max_length)

    @property
    def kept_prompts(self) -> int:
        """How many prompts are kept for those that begin alike. Any thread may ask."""
        batch = self._batch
        return 0 if batch is None else batch.kept_prompts

    @property
    def busy(self) -> bool:
        """True while a request is waiting or running."""
        return bool(self._waiting or self._running)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until there is something to do, for at most ``timeout`` seconds; return ``busy``."""
        with self._changed:
            self._changed.wait_for(lambda: self.busy or self._use.closed, timeout)
            return self.busy and not self._use.closed

    def step(self) -> list[Event]:
        """Read tokens of joining prompts and decode one token of every running request; return the events.

        Where a pass of the model fails, the requests that took part have an event with the error, and the others go on.

        Raises:
            UsageError: another thread is in a step, or the scheduler is closed.
        """
        with self._use.acquired():
            batch = self._batch
            assert batch is not None  # it is None only where the scheduler is closed
            events: list[Event] = []
            try:
                self._remove_cancelled(batch)
                events += self._expire()
                events += self._join(batch)
                events += self._decode(batch)
            except BaseException as error:
                lost, self._running = self._running, []
                batch.clear()
                if not isinstance(error, Exception):
                    raise
                events += [entry.failed(error) for entry in lost if entry.sequence.finish_reason is None]
            self._keep_texts()
            self._running = [entry for entry in self._running if entry.sequence.finish_reason is None]
            return events

    def close(self) -> None:
        """Release the cache, once the prompts for the disk are written. Waiting and running requests are dropped."""
        self._use.closed = True
        with self._changed:
            self._waiting.clear()
            self._changed.notify_all()
        self._running = []
        batch, self._batch = self._batch, None
        if batch is not None:
            batch.close()

    def __enter__(self) -> "Scheduler":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _keep_texts(self) -> None:
        """Keep the texts that have ended, for the guesses of later requests, where guesses are made at all."""
        if self._earlier is None:
            return
        for entry in self._running:
            sequence = entry.sequence
            if entry.rounds is not None and sequence.token_ids and sequence.finish_reason is not None:
                self._earlier.add(sequence.prompt[-CONTEXT:].tolist(), sequence.token_ids)

    def _remove_cancelled(self, batch: Batch) -> None:
        """Remove the requests that have been cancelled, running or waiting."""
        with self._changed:
            cancelled, self._cancelled = self._cancelled, set()
            if not cancelled:
                return
            self._waiting = deque(entry for entry in self._waiting if entry.number not in cancelled)
        for entry in self._running:
            if entry.number in cancelled:
                batch.leave(entry.sequence)
        self._running = [entry for entry in self._running if entry.number not in cancelled]

    def _expire(self) -> list[Event]:
        """Remove the waiting requests whose time is over; return their events."""
        with self._changed:
            late = [entry for entry in self._waiting if entry.sequence.expired()]
            if late:
                self._waiting = deque(entry for entry in self._waiting if entry.sequence.finish_reason is None)
        return [event for entry in late for event in entry.event("")]

    def _join(self, batch: Batch) -> list[Event]:
        """Read as many tokens of prompts as a step may; more where no request is decoded meanwhile."""
        events: list[Event] = []
        others = batch.running > 0
        budget = self._prefill_tokens if others else PREFILL_CHUNK
        while budget > 0 and (entry := self._next(batch)) is not None:
            try:
                if batch.joining is None:
                    entry.cached = batch.begin(entry.sequence)
                wanted = min(budget, self._pace.size(entry.prompt_tokens)) if others else budget
                size = next_chunk(self._facts, entry.prompt_tokens, batch.unread, wanted, self._step)
                budget -= size if wanted == budget else budget  # a chunk that is bounded is the last of its step
                began = time.monotonic()
                chunk = None if entry.sequence.expired() else batch.read(size)
                if others:
                    self._pace.read(entry.prompt_tokens, size, time.monotonic() - began)
            except Exception as error:  # whatever ONNX Runtime raises
                batch.leave(entry.sequence)
                self._running.remove(entry)
                events.append(entry.failed(error))
                continue
            if entry.sequence.finish_reason == "time" and not entry.sequence.token_ids:
                batch.leave(entry.sequence)
                chunk = ""
            if chunk is not None:
                events += entry.event(chunk)
        return events

    def _next(self, batch: Batch) -> Waiting | None:
        """Return the request whose prompt is read: the one that joins, else the one that waits longest and has a slot.

        It is added to those that run.
        """
        if batch.joining is not None:
            return next(entry for entry in self._running if entry.sequence is batch.joining)
        with self._changed:
            if not (self._waiting and batch.free):
                return None
            entry = self._waiting.popleft()
            self._running.append(entry)
        entry.began = time.monotonic()
        return entry

    def _decode(self, batch: Batch) -> list[Event]:
        entries = {id(entry.sequence): entry for entry in self._running}
        began, decoding = time.monotonic(), batch.running > 0
        events: list[Event] = []
        try:
            for sequence, chunk, error in batch.step(lambda sequence: entries[id(sequence)].rounds):
                entry = entries[id(sequence)]
                if error is None:
                    events += entry.event(chunk)
                else:
                    events.append(entries.pop(id(sequence)).failed(error))
        except Exception as error:  # whatever ONNX Runtime raises
            events = [entries.pop(id(sequence)).failed(error) for sequence in batch.drop_running()]
        if decoding:
            self._pace.decoded(time.monotonic() - began)
        self._running = list(entries.values())
        return events
