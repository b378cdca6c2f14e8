"""Requests to the application without a socket: Ray's replicas and batch files send them."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import NoReturn
from urllib.parse import unquote

from starlette.types import ASGIApp, Message, Scope

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Call:
    """An HTTP request whose body has arrived.

    Attributes:
        path: percent-encoded, as in the request line.
        headers: (name, value), the names in lower case.
        client: the address and port of the client; None where it is not known.
    """

    method: str
    path: str
    body: bytes = b""
    query: bytes = b""
    headers: tuple[tuple[bytes, bytes], ...] = ()
    client: tuple[str, int] | None = None

    def scope(self) -> Scope:
        """Return the request as ASGI's scope."""
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": self.method,
            "scheme": "http",
            "path": unquote(self.path),
            "raw_path": self.path.encode(),
            "root_path": "",
            "query_string": self.query,
            "headers": [list(header) for header in self.headers],
            "client": self.client,
            "server": None,
        }


@dataclass(frozen=True)
class Answer:
    """An answer that is complete; the names of headers are in lower case."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


async def messages(app: ASGIApp, call: Call) -> AsyncGenerator[list[Message], None]:
    """Send a request to an application; yield ASGI's messages of its answer, together those that are there.

    Closing the generator cancels the request. What the application raises before it answers is raised here.
    """
    ready: asyncio.Queue[Message | None] = asyncio.Queue()
    body = iter([{"type": "http.request", "body": call.body, "more_body": False}])

    async def receive() -> Message:
        if (message := next(body, None)) is not None:
            return message
        return await _until_cancelled()

    async def run() -> None:
        await app(call.scope(), receive, ready.put)

    task = asyncio.create_task(run())
    task.add_done_callback(lambda _: ready.put_nowait(None))
    begun = ended = False
    try:
        while not ended:
            batch = [await ready.get()]
            while not ready.empty():
                batch.append(ready.get_nowait())
            ended = None in batch
            if found := [message for message in batch if message is not None]:
                begun = True
                yield found
        error = task.exception()
        if error is not None and not begun:
            raise error
        if error is not None:  # it has answered with an error, or the client sees that the answer is not complete
            log.error("%s %s failed", call.method, call.path, exc_info=error)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def answer(app: ASGIApp, call: Call) -> Answer:
    """Send a request to an application; return its whole answer."""
    status, body = 0, bytearray()
    headers: dict[str, str] = {}
    async with aclosing(messages(app, call)) as batches:
        async for batch in batches:
            for message in batch:
                status = message.get("status", status)
                body += message.get("body", b"")
                headers.update(
                    {name.decode().lower(): value.decode("latin-1") for name, value in message.get("headers", ())}
                )
    return Answer(status, bytes(body), headers)


async def _until_cancelled() -> NoReturn:
    await asyncio.Event().wait()
    raise AssertionError("nobody sets the event")
