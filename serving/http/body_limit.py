"""The size of bodies: of each one, and of all that are in memory at once."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..errors import ApiError

BODIES_AT_ONCE = 16
"""How many of the longest bodies may be in memory at once."""


class BodyLimit:
    """Refuse bodies that are longer than ``max_body`` bytes, whether or not they have a Content-Length."""

    def __init__(self, app: ASGIApp, max_body: int) -> None:
        self._app = app
        self._max_body = max_body
        self._held = 0

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

    def _too_long(self) -> ApiError:
        return ApiError(
            f"the body is longer than {self._max_body:,} bytes; send less, or serve with a larger --max-body",
            status=413,
            code="body_too_long",
        )
