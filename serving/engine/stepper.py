"""A thread that steps a scheduler, and gives its events to the event loop."""

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress

from ...runtime.generation.events import Event
from ...runtime.generation.scheduler import Scheduler

log = logging.getLogger(__name__)


class Stepper:
    """Steps a scheduler until it is closed, and sleeps while there is nothing to do.

    Args:
        name: the model's.
        loop: the event loop on which the functions are called.
        deliver: receives the events of one step or several, in their order.
        ended: called after the last events, when the thread ends.
    """

    def __init__(
        self,
        name: str,
        scheduler: Scheduler,
        loop: asyncio.AbstractEventLoop,
        deliver: Callable[[Sequence[Event]], None],
        ended: Callable[[], None],
    ) -> None:
        self._name = name
        self._scheduler = scheduler
        self._loop = loop
        self._deliver = deliver
        self._ended = ended
        self._lock = threading.Lock()
        self._events: list[Event] = []  # not delivered yet
        self._closing = False
        self._running = True
        self._thread = threading.Thread(target=self._run, name=f"engine {name}", daemon=True)
        self._thread.start()

    @property
    def running(self) -> bool:
        """True until the thread ends; False before ``ended`` is called."""
        return self._running

    def close(self) -> None:
        """Close the scheduler and wait for the thread's end. Any thread may call this, and twice."""
        self._closing = True
        self._scheduler.close()
        self._thread.join()

    def _run(self) -> None:
        try:
            while self._scheduler.wait():
                self._send(self._scheduler.step())
        except Exception:
            if not self._closing:  # a step that meets a closed scheduler
                log.exception("the thread of %s has ended", self._name)
        finally:
            self._running = False
            self._call(self._ended)

    def _send(self, events: Sequence[Event]) -> None:
        """Hand events to the loop, together with those of later steps where it is busy."""
        if not events:
            return
        with self._lock:
            called = bool(self._events)
            self._events += events
        if not called:
            self._call(self._flush)

    def _flush(self) -> None:
        with self._lock:
            events, self._events = self._events, []
        self._deliver(events)

    def _call(self, function: Callable[[], None]) -> None:
        with suppress(RuntimeError):  # the loop is closed, so nobody waits for anything
            self._loop.call_soon_threadsafe(function)
