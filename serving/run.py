"""Run the application with uvicorn, until a signal: then new requests are refused and running ones end."""

import asyncio
import os
import time
from collections.abc import Callable
from types import FrameType

import uvicorn
from starlette.applications import Starlette

from .http.connection import connection_class
from .server import Server

SENDING = 2.0
"""Seconds in which the last answers are sent when the models have been closed."""


class DrainingServer(uvicorn.Server):
    """A uvicorn server that a first SIGINT or SIGTERM drains, and a second one ends at once.

    Args:
        on_ready: called when the models are loaded.
    """

    def __init__(self, config: uvicorn.Config, state: Server, on_ready: Callable[[], None] | None) -> None:
        super().__init__(config)
        self._state = state
        self._on_ready = on_ready
        self._drain: asyncio.Task[None] | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Drain; the second time, end the process."""
        if self._state.draining:
            os._exit(128 + sig)  # threads may be inside of a pass of the model, which nothing else stops
        self._state.ready = False
        self._state.draining = True

    async def on_tick(self, counter: int) -> bool:
        """Return True where the server is to end; uvicorn asks ten times a second."""
        if await super().on_tick(counter):
            return True
        if self._on_ready is not None and self._state.ready:
            self._on_ready()
            self._on_ready = None
        if self._state.draining and self._drain is None:
            self._drain = asyncio.create_task(self._end_requests())
        return self._state.failure is not None or (self._drain is not None and self._drain.done())

    async def _end_requests(self) -> None:
        """Let the requests end; those that do not are ended with an error, which is sent."""
        await self._state.models.drain(self._state.settings.drain_timeout)
        end = time.monotonic() + SENDING
        while self._state.active and time.monotonic() < end:
            await asyncio.sleep(0.01)


def make_server(app: Starlette, on_ready: Callable[[], None] | None = None) -> uvicorn.Server:
    """Return a uvicorn server of an application; ``run(sockets=[...])`` serves until it is told to end.

    Args:
        on_ready: called when the models are loaded.
    """
    state: Server = app.state.server
    config = uvicorn.Config(
        app,
        http=connection_class(state.settings),
        ws="none",
        loop="asyncio",  # what the extra installs, so that every server has the same
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # a client could write any address into the log
        timeout_graceful_shutdown=1,  # draining is over by then
    )
    return DrainingServer(config, state, on_ready)
