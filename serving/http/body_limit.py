"""The size of bodies: of each one, and of all that are in memory at once."""

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ...machine import give_back_memory
from ..errors import ApiError

BODIES_AT_ONCE = 16
"""How many of the longest bodies may be in memory at once."""

LONG = 64 << 10
"""Bytes of a body after which freed memory is returned to the system. A text of 400 KB leaves 100 MB of it, which glibc
would keep for each thread that has tokenized one."""


class BodyLimit:
    """Refuse bodies that are longer than ``max_body`` bytes, whether or not they have a Content-Length.

    After a long one, memory that its request has freed is returned to the system.
    """

    def __init__(self, app: ASGIApp, max_body: int) -> None:
        self._app = app
        self._max_body = max_body
        self._held = 0
        self._returning = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        length = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        if len(length) > 18 or int(length) > self._max_body:
            await self._too_long().response()(scope, receive, send)
            return
        held = 0

        async def receiving() -> Message:
            nonlocal held
            message = await receive()
            size = len(message.get("body", b""))
            held += size
            self._held += size
            if held > self._max_body:
                raise self._too_long()
            if self._held > self._max_body * BODIES_AT_ONCE:
                raise ApiError(
                    "the bodies of all requests need too much memory; try again later",
                    status=429,
                    kind="rate_limit_error",
                    code="too_many_bodies",
                    retry_after=1,
                )
            return message

        try:
            await self._app(scope, receiving, send)
        finally:
            self._held -= held
            if held > LONG:
                self._return_memory()

    def _return_memory(self) -> None:
        """Return freed memory to the system, on a thread and once at a time."""
        if not self._returning:
            self._returning = True
            done = asyncio.get_running_loop().run_in_executor(None, give_back_memory)
            done.add_done_callback(lambda _: setattr(self, "_returning", False))

    def _too_long(self) -> ApiError:
        return ApiError(
            f"the body is longer than {self._max_body:,} bytes; send less, or serve with a larger --max-body",
            status=413,
            code="body_too_long",
        )
