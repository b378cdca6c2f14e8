"""A text-generation model that many requests share: a thread steps its scheduler, and asyncio tasks read the events."""

import asyncio
import logging
import threading
import time
from collections.abc import AsyncGenerator, Sequence
from typing import Unpack

from ...errors import IntaglioError
from ...runtime.generation.generator import TextGenerator
from ...runtime.generation.scheduler import Event, Waiting
from ...runtime.sequence.options import Options
from ...runtime.text.prompts import Prompt
from ..errors import ApiError, failed
from ..settings import Settings
from .observer import Observer, RequestRecord, Silent

log = logging.getLogger(__name__)


class Engine:
    """The scheduler of one model, on a thread of its own.

    Requests are prepared on any thread (``prepare`` compiles grammars and checks options), and run from the event loop.
    """

    def __init__(
        self, name: str, generator: TextGenerator, settings: Settings, observer: Observer | None = None
    ) -> None:
        self.name = name
        self.generator = generator
        self._settings = settings
        self._observer: Observer = observer or Silent()
        self._scheduler = generator.scheduler(
            slots=settings.slots,
            max_length=settings.max_length,
            prefill_tokens=settings.prefill_tokens,
            kept_prompts=settings.kept_prompts,
        )
        self._queues: dict[int, asyncio.Queue[Event]] = {}
        self._loop = asyncio.get_running_loop()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=f"engine {name}", daemon=True)
        self._thread.start()

    @property
    def running(self) -> int:
        """How many requests have a slot."""
        return self._scheduler.running

    @property
    def waiting(self) -> int:
        """How many requests wait for one."""
        return self._scheduler.waiting

    @property
    def max_length(self) -> int:
        """The most tokens of a request, prompt and continuation together."""
        return self._settings.max_length or self.generator.manifest.model.context_length

    def prepare(self, prompt: Prompt, *, index: int = 0, repetition: int = 0, **options: Unpack[Options]) -> Waiting:
        """Return a request for ``run``. Any thread may call this; it may take a while.

        Raises:
            PromptError, UsageError: as ``Scheduler.prepare``.
        """
        return self._scheduler.prepare(prompt, index=index, repetition=repetition, **options)

    async def run(self, requests: Sequence[Waiting], client: str = "") -> AsyncGenerator[tuple[int, Event], None]:
        """Run requests together; yield (index, event) until all have ended. Closing the generator cancels the rest.

        Args:
            requests: the choices or prompts of one call, all admitted or none.
            client: whose requests they are, for limits per key.

        Raises:
            ApiError: 429 where the queue is full; 500 where a pass of the model failed.
        """
        if self.waiting + len(requests) > self._settings.max_queue + self._settings.slots:
            self._observer.refused(self.name, "queue_full")
            raise ApiError(
                f"{len(requests)} requests do not fit the queue of {self.name}; try again later",
                status=429,
                kind="rate_limit_error",
                code="queue_full",
                retry_after=1,
            )
        queue: asyncio.Queue[Event] = asyncio.Queue()
        index = {request.number: number for number, request in enumerate(requests)}
        records = {request.number: RequestRecord(self.name, request.prompt_tokens) for request in requests}
        for request in requests:
            self._queues[request.number] = queue
            self._scheduler.add(request)
        open_requests = set(index)
        try:
            while open_requests:
                event = await queue.get()
                records[event.request].started = requests[index[event.request]].began
                self._observe(records[event.request], event)
                if event.result is not None or event.error is not None:
                    open_requests.discard(event.request)
                if event.error is not None:
                    log.error("a pass of %s failed", self.name, exc_info=event.error)
                    raise failed()
                yield index[event.request], event
        finally:
            for number in open_requests:
                self._scheduler.cancel(number)
                records[number].outcome = "cancelled"
                self._observer.finished(records[number], time.monotonic())
            for number in index:
                self._queues.pop(number, None)

    def close(self) -> None:
        """End the thread and close the scheduler; requests that have not ended get no more events."""
        self._stopping = True
        self._scheduler.close()
        self._thread.join()

    def _observe(self, record: RequestRecord, event: Event) -> None:
        now = time.monotonic()
        record.cached_tokens = event.cached_tokens
        if event.token_ids:
            self._observer.tokens(record, len(event.token_ids), now)
            record.first_token = record.first_token or now
            record.last_token = now
            record.tokens += len(event.token_ids)
        if event.error is not None or event.result is not None:
            record.outcome = "error" if event.result is None else event.result.finish_reason
            self._observer.finished(record, now)

    def _run(self) -> None:
        while not self._stopping:
            if not self._scheduler.wait():
                continue
            try:
                events = self._scheduler.step()
            except IntaglioError:  # it has been closed
                continue
            if events:
                self._loop.call_soon_threadsafe(self._deliver, events)

    def _deliver(self, events: Sequence[Event]) -> None:
        for event in events:
            if (queue := self._queues.get(event.request)) is not None:
                queue.put_nowait(event)
