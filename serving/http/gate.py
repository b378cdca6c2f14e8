"""The gate: counts the requests that are being answered, and closes while the server ends."""

from collections.abc import Callable

from starlette.types import ASGIApp, Receive, Scope, Send

from ..errors import shutting_down
from ..server import Server


class Gate:
    """Count requests in ``server.active``; answer 503 while the server drains.

    Args:
        is_open: the paths that are answered even then, and are not counted.
    """

    def __init__(self, app: ASGIApp, server: Server, is_open: Callable[[str], bool]) -> None:
        self._app = app
        self._server = server
        self._is_open = is_open

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or self._is_open(scope["path"]):
            await self._app(scope, receive, send)
        elif self._server.draining:
            response = shutting_down().response()
            response.headers["Connection"] = "close"
            await response(scope, receive, send)
        else:
            self._server.active += 1
            try:
                await self._app(scope, receive, send)
            finally:
                self._server.active -= 1
