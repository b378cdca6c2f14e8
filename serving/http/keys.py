"""API keys: ``Authorization: Bearer KEY``, compared in constant time."""

import hmac
from collections.abc import Callable, Sequence
from hashlib import sha256

from starlette.types import ASGIApp, Receive, Scope, Send

from ..errors import ApiError
from ..record import current


class Keys:
    """Let only requests with one of the keys pass, and note a hash of the key in the request's record.

    Args:
        keys: the keys; without any, every request passes.
        is_open: the paths that need no key.
    """

    def __init__(self, app: ASGIApp, keys: Sequence[str], is_open: Callable[[str], bool]) -> None:
        self._app = app
        self._digests = [sha256(key.encode("utf-8")).digest() for key in keys]
        self._is_open = is_open

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not self._digests or self._is_open(scope["path"]):
            await self._app(scope, receive, send)
            return
        given = next((value for name, value in scope["headers"] if name == b"authorization"), None)
        if given is None:
            await _refuse(scope, receive, send, "the request has no API key; send it as Authorization: Bearer KEY")
            return
        scheme, _, key = given.partition(b" ")
        digest = sha256(key.strip()).digest()
        # Every key is compared, so that the time does not tell which one is near.
        matches = [hmac.compare_digest(digest, known) for known in self._digests]
        if scheme.lower() != b"bearer" or not any(matches):
            await _refuse(scope, receive, send, "the API key is not one of this server's", "invalid_api_key")
            return
        current().client = digest.hex()[:8]
        await self._app(scope, receive, send)


async def _refuse(scope: Scope, receive: Receive, send: Send, message: str, code: str | None = None) -> None:
    response = ApiError(message, status=401, kind="authentication_error", code=code).response()
    response.headers["WWW-Authenticate"] = "Bearer"
    await response(scope, receive, send)
