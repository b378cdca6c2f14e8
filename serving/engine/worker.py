"""A model of a task without generation: its calls take turns on a thread of its own."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

from ...runtime.load import Model
from ..errors import shutting_down, timed_out
from ..record import current
from ..settings import Settings
from ..steps import Steps
from .admission import Admission

Result = TypeVar("Result")


@dataclass(frozen=True)
class Returned(Generic[Result]):
    """What a generator has returned."""

    value: Result


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
        ends = None if self._timeout is None else loop.time() + self._timeout
        step: Future[Returned[Result] | None] | None = None
        try:
            while True:
                step = self._submit(steps)
                result = asyncio.wrap_future(step)
                ended, _ = await asyncio.wait({result}, timeout=None if ends is None else max(ends - loop.time(), 0))
                if not ended:
                    raise timed_out(self.name, self._timeout)
                if result.cancelled():
                    raise shutting_down()
                if (returned := result.result()) is not None:
                    return returned.value
        finally:
            if step is None or step.cancel() or step.done():
                self._admission.leave(client)
            else:
                step.add_done_callback(lambda _: loop.call_soon_threadsafe(self._admission.leave, client))

    def _submit(self, steps: Steps[Result]) -> "Future[Returned[Result] | None]":
        try:
            return self._executor.submit(_advance, steps)
        except RuntimeError:  # it has been shut down
            raise shutting_down() from None

    def close(self) -> None:
        """End the thread after the call that runs; those that wait are cancelled."""
        self._executor.shutdown(cancel_futures=True)


def _advance(steps: Steps[Result]) -> Returned[Result] | None:
    """Take a step; return what the generator returns, None where it has not ended."""
    try:
        next(steps)
    except StopIteration as end:
        return Returned(end.value)
    return None
