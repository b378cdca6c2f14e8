"""The head of a request: its size, its host, and a body with one length."""

from collections.abc import Collection

from starlette.types import ASGIApp, Receive, Scope, Send

from ..errors import ApiError

MAX_TARGET = 4096
"""Bytes of a path and its query."""

MAX_HEAD = 16 << 10
"""Bytes of all headers."""

MAX_HEADERS = 100


class Head:
    """Refuse a request whose head is too long, ambiguous, or meant for another host.

    Args:
        hosts: the names by which the server may be called, lower case and without ports; empty for any. A web page
            whose name was made to mean this machine (DNS rebinding) calls the server by that name, and is refused.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str]) -> None:
        self._app = app
        self._hosts = frozenset(hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (error := self._error(scope)) is not None:
            await error.response()(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _error(self, scope: Scope) -> ApiError | None:
        headers = scope["headers"]
        if len(scope.get("raw_path", b"")) + len(scope["query_string"]) > MAX_TARGET:
            return ApiError(f"the path and its query are longer than {MAX_TARGET:,} bytes", status=414)
        if len(headers) > MAX_HEADERS or sum(len(name) + len(value) for name, value in headers) > MAX_HEAD:
            return ApiError(
                f"the headers are more than {MAX_HEADERS} or longer than {MAX_HEAD:,} bytes; send fewer", status=431
            )
        if scope["http_version"] not in ("1.0", "1.1"):
            return ApiError("the request is of another version than HTTP/1.1; send one of it")
        names = [name for name, _ in headers]
        if b"content-length" in names and b"transfer-encoding" in names:
            return ApiError("the request has both Content-Length and Transfer-Encoding; send one of them")
        if self._hosts:
            host = host_name(next((value for name, value in headers if name == b"host"), b""))
            if host not in self._hosts:
                return ApiError(
                    f"the server is not called {host[:100]!r}; allow the name with `intaglio serve --allow-host`",
                    status=403,
                    kind="permission_error",
                    code="host_not_allowed",
                )
        return None


def host_name(header: bytes) -> str:
    """Return the name of a Host header, lower case and without its port: ``localhost``, ``[::1]``."""
    text = header.decode("latin-1").strip().lower()
    if text.startswith("["):
        return text.partition("]")[0] + "]"
    return text.partition(":")[0].removesuffix(".")
