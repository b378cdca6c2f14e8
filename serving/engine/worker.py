"""A model of a task without generation: its calls take turns on a thread of its own."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

from ...runtime.load import Model
from ..errors import shutting_down, timed_out
from ..record import current
from ..settings import Settings
from ..steps import Steps
from .admission import Admission

Result = TypeVar("Result")


class Worker:
    """Runs the calls of one model, one step at a time. Use it from the event loop."""

    def __init__(self, name: str, model: Model, settings: Settings) -> None:
        self.name = name
        self.model = model
        self._timeout = settings.request_timeout
        self._admission = Admission(name, 1, settings.max_queue, settings.per_key)
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=f"worker {name}")

    @property
    def open(self) -> int:
        """How many calls wait or run."""
        return self._admission.open

    async def run(self, function: Callable[[], Result], client: str | None = None) -> Result:
        """Return what a function returns. Errors as ``run_steps``."""

        def steps() -> Steps[Result]:
            yield from ()
            return function()

        return await self.run_steps(steps(), client)

    async def run_steps(self, steps: Steps[Result], client: str | None = None) -> Result:
        """Return what a generator returns; the steps of other calls run between its own.

        A call that is cancelled, or whose time is over, takes no further step. One that has begun cannot be stopped, so
        the call counts until it ends.

        Args:
            client: whose call it is, for limits per key; None for the client of the current HTTP request. An empty name
                has no limit.

        Raises:
            ApiError: 429 as ``Admission.check``; 504 where the time of a request is over; 503 where the server ends.
        """
        client = current().client if client is None else client
        self._admission.enter(1, client)
        loop = asyncio.get_running_loop()
        call = _Call(self._executor, steps)
        result: asyncio.Future[Result] | None = None
        try:
            call.begin()
            # The steps do not wait for the loop, which may be busy with others.
            result = asyncio.wrap_future(call.result)
            ended, _ = await asyncio.wait({result}, timeout=self._timeout)
            if not ended:
                raise timed_out(self.name, self._timeout)
            return result.result()
        finally:
            if result is not None:
                result.cancel()  # nobody waits for it any more, even for its error
            if (step := call.stop()) is None:
                self._admission.leave(client)
            else:
                step.add_done_callback(lambda _: loop.call_soon_threadsafe(self._admission.leave, client))

    def close(self) -> None:
        """End the thread after the call that runs; those that wait are cancelled."""
        self._executor.shutdown(cancel_futures=True)


class _Call(Generic[Result]):
    """The steps of one call: each is queued when the one before has ended, behind those of the other calls.

    Attributes:
        result: what the generator returns or raises; an ApiError where the executor has been shut down.
    """

    def __init__(self, executor: ThreadPoolExecutor, steps: Steps[Result]) -> None:
        self.result: Future[Result] = Future()
        self.result.set_running_or_notify_cancel()
        self._executor = executor
        self._steps = steps
        self._lock = threading.Lock()
        self._stopped = False
        self._step: Future[None] | None = None

    def begin(self) -> None:
        """Queue the first step."""
        with self._lock:
            self._queue()

    def stop(self) -> "Future[None] | None":
        """Take no further step; return the one that runs, None where none does."""
        with self._lock:
            self._stopped = True
            step = self._step
        return None if step is None or step.cancel() or step.done() else step

    def _queue(self) -> None:
        try:
            self._step = self._executor.submit(self._advance)
        except RuntimeError:  # it has been shut down
            self.result.set_exception(shutting_down())
        else:
            self._step.add_done_callback(self._dropped)

    def _dropped(self, step: "Future[None]") -> None:
        if step.cancelled() and not self._stopped:  # the executor was shut down while the step waited
            self.result.set_exception(shutting_down())

    def _advance(self) -> None:
        try:
            next(self._steps)
        except StopIteration as end:
            self.result.set_result(end.value)
        except BaseException as error:
            self.result.set_exception(error)
        else:
            with self._lock:
                if not self._stopped:
                    self._queue()
