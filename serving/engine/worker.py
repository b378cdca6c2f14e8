"""A model of a task without generation: its calls run one after the other, on a thread of its own."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from ...runtime.load import Model
from ..errors import shutting_down, timed_out
from ..settings import Settings
from .admission import Admission

Result = TypeVar("Result")


class Worker:
    """Runs the calls of one model in their order. Use it from the event loop."""

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

    async def run(self, function: Callable[[], Result], client: str = "") -> Result:
        """Return what a function returns. A call that is cancelled before it has begun does not begin.

        Raises:
            ApiError: 429 as ``Admission.check``; 504 where the time of a request is over.
        """
        self._admission.enter(1, client)
        call = self._executor.submit(function)
        # A call that has begun cannot be stopped, so it counts until it ends.
        loop = asyncio.get_running_loop()
        call.add_done_callback(lambda _: loop.call_soon_threadsafe(self._admission.leave, client))
        result = asyncio.wrap_future(call)
        try:
            ended, _ = await asyncio.wait({result}, timeout=self._timeout)
        finally:
            call.cancel()
        if not ended:
            raise timed_out(self.name, self._timeout)
        if result.cancelled():
            raise shutting_down()
        return result.result()

    def close(self) -> None:
        """End the thread after the call that runs; those that wait are cancelled."""
        self._executor.shutdown(cancel_futures=True)
