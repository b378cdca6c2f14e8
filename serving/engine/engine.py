"""A text-generation model that many requests share: which are open, and who receives the events of each."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar, Unpack

from ...errors import PromptError, UsageError
from ...runtime.generation.events import Event, Waiting
from ...runtime.generation.generator import TextGenerator
from ...runtime.sequence.options import Options
from ...runtime.text.prompts import Prompt
from ..errors import ApiError, failed, no_memory, refused, shutting_down, timed_out
from ..record import current
from ..settings import Settings
from .admission import Admission
from .cache_memory import CacheMemory
from .observer import Observer, RequestRecord, Silent
from .stepper import Stepper
from .worker import Worker

log = logging.getLogger(__name__)
Result = TypeVar("Result")


@dataclass
class _Open:
    """A request that has not ended: who receives its events, under which index, and what is known of it."""

    request: Waiting
    index: int
    client: str
    record: RequestRecord
    events: asyncio.Queue[tuple[int, Event] | ApiError]


class Engine:
    """The scheduler of one model, which a thread of its own steps.

    Requests are prepared on any thread (``prepare`` compiles grammars and checks options), and run from the event loop.

    Args:
        loop: the event loop that ``run`` is called from.

    Raises:
        UsageError: there is not enough memory for the slots.
    """

    def __init__(
        self,
        name: str,
        generator: TextGenerator,
        settings: Settings,
        observer: Observer | None,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.name = name
        self.generator = generator
        self._settings = settings
        self._observer: Observer = observer or Silent()
        self._admission = Admission(name, settings.slots, settings.max_queue, settings.per_key)
        self._memory = CacheMemory(name, generator.session)
        self._memory.check_slots(settings)
        self._scheduler = generator.scheduler(
            slots=settings.slots,
            max_length=settings.max_length,
            prefill_tokens=settings.prefill_tokens,
            kept_prompts=settings.kept_prompts,
            prompt_cache=settings.prompt_cache,
            kept_outputs=settings.kept_outputs,
        )
        self._open: dict[int, _Open] = {}
        self._beside = Worker(name, generator, settings)
        self._loop = loop
        self._closing = False
        self._stepper = Stepper(name, self._scheduler, loop, self._deliver, self._lose_all)

    @property
    def running(self) -> int:
        """How many requests have a slot."""
        return self._scheduler.running

    @property
    def waiting(self) -> int:
        """How many requests wait for one."""
        return self._scheduler.waiting

    @property
    def cache_usage(self) -> float:
        """The part of the slots' KV cache that running requests fill, 0 to 1."""
        return self._scheduler.cache_usage

    @property
    def kept_prompts(self) -> int:
        """How many prompts are kept for those that begin alike."""
        return self._scheduler.kept_prompts

    @property
    def max_length(self) -> int:
        """The most tokens of a request, prompt and continuation together."""
        return self._settings.longest(self.generator.manifest.model.context_length)

    @property
    def alive(self) -> bool:
        """False where the thread has ended though nobody closed the engine."""
        return self._stepper.running or self._closing

    def prepare(self, prompt: Prompt, *, index: int = 0, repetition: int = 0, **options: Unpack[Options]) -> Waiting:
        """Return a request for ``run``. Any thread may call this; it may take a while.

        The time of a request (``request_timeout``) begins here.

        Raises:
            PromptError, UsageError: as ``Scheduler.prepare``.
            ApiError: 429 where the queue is full already.
        """
        if self._closing:
            raise shutting_down()
        try:
            self._admission.check()
        except ApiError as error:
            self._loop.call_soon_threadsafe(self._observer.refused, self.name, error.code or "too_many")
            raise
        if (most := self._settings.request_timeout) is not None:
            options["max_time"] = min(most, options.get("max_time") or most)
        try:
            return self._scheduler.prepare(prompt, index=index, repetition=repetition, **options)
        except UsageError:
            if self._closing:  # since the check above
                raise shutting_down() from None
            raise

    async def run_task(self, function: Callable[[TextGenerator], Result], client: str | None = None) -> Result:
        """Return ``function(generator)``, called on a thread beside that of the steps, such as a score.

        One call runs at a time; how many may wait is as for requests. Arguments and errors as ``Worker.run_steps``.
        """
        return await self._beside.run(partial(function, self.generator), client)

    async def run(
        self, requests: Sequence[Waiting], client: str | None = None
    ) -> AsyncGenerator[tuple[int, Event], None]:
        """Run requests together; yield (index, event) until all have ended. Closing the generator cancels the rest.

        Where the time of a request is over, it ends with the text that is there and the finish reason "time"; where
        none of the call's requests has a token by then, the call is refused.

        Args:
            requests: the choices or prompts of one call, all admitted or none.
            client: whose requests they are, for limits per key; None for the client of the current HTTP request. An
                empty name has no limit.

        Raises:
            ApiError: 429 where there are too many requests, 504 where the time is over, 503 where memory is short or
                the server ends, 500 where a pass of the model failed.
        """
        client = current().client if client is None else client
        if not self._stepper.running:
            raise shutting_down() if self._closing else failed()
        try:
            self._admission.check(len(requests), client)
            self._memory.check(self._scheduler, requests, self._admission.retry_after())
        except ApiError as error:
            self._observer.refused(self.name, error.code or "too_many")
            raise
        self._admission.enter(len(requests), client)
        events: asyncio.Queue[tuple[int, Event] | ApiError] = asyncio.Queue()
        prompts: set[bytes] = set()
        for index, request in enumerate(requests):
            prompt = request.sequence.prompt.tobytes()
            record = RequestRecord(self.name, request.prompt_tokens, same_prompt=prompt in prompts)
            record.http.prompt_tokens += 0 if record.same_prompt else request.prompt_tokens
            prompts.add(prompt)
            self._open[request.number] = _Open(request, index, client, record, events)
        ended, answered = 0, False
        try:
            self._add(requests)
            while ended < len(requests):
                found = await events.get()
                if isinstance(found, ApiError):
                    raise found
                _, event = found
                answered = answered or bool(event.token_ids)
                if event.result is not None:
                    ended += 1
                    if event.result.finish_reason == "time" and not answered:
                        raise timed_out(self.name, self._settings.request_timeout)
                yield found
        finally:
            for request in requests:
                if (entry := self._open.get(request.number)) is not None:
                    self._scheduler.cancel(request.number)
                    self._end(entry, "cancelled")

    def close(self) -> None:
        """End the thread and close the scheduler; requests that have not ended end with an error. Any thread may call
        this, and twice.
        """
        self._closing = True
        self._stepper.close()
        self._beside.close()

    def _add(self, requests: Sequence[Waiting]) -> None:
        try:
            for request in requests:
                self._scheduler.add(request)
        except UsageError:  # it has just been closed
            raise shutting_down() from None

    def _deliver(self, events: Sequence[Event]) -> None:
        """Give events to those who wait for them."""
        for event in events:
            entry = self._open.get(event.request)
            if entry is None:  # it has been cancelled
                continue
            self._observe(entry, event)
            if event.error is not None:
                self._end(entry, "error")
                entry.events.put_nowait(self._answer(event.error))
                continue
            if event.result is not None:
                self._end(entry, event.result.finish_reason)
            entry.events.put_nowait((entry.index, event))

    def _answer(self, error: Exception) -> ApiError:
        if isinstance(error, UsageError):  # what the request excludes leaves no token
            return refused(error)
        if isinstance(error, PromptError):
            return no_memory(self.name, self._admission.retry_after())
        log.error("a pass of %s failed", self.name, exc_info=error)
        return failed()

    def _lose_all(self) -> None:
        """End all requests, since the thread has ended."""
        for entry in list(self._open.values()):
            self._end(entry, "error")
            entry.events.put_nowait(shutting_down() if self._closing else failed())

    def _observe(self, entry: _Open, event: Event) -> None:
        """Tell the observer of an event's tokens."""
        now = time.monotonic()
        record = entry.record
        record.started = entry.request.began
        record.cached_tokens = event.cached_tokens
        if event.token_ids:
            self._observer.tokens(record, len(event.token_ids), now)
            record.count(len(event.token_ids), now)

    def _end(self, entry: _Open, outcome: str) -> None:
        """Take a request out of the open ones, which happens once."""
        del self._open[entry.request.number]
        entry.record.end("timeout" if outcome == "time" and not entry.record.tokens else outcome)
        self._admission.leave(entry.client)
        self._observer.finished(entry.record, time.monotonic())
