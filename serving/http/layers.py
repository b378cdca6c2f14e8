"""The layers around the endpoints, in their order."""

from collections.abc import Sequence

from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from ..server import Server
from .access import Access
from .body_limit import BodyLimit
from .gate import Gate
from .head import Head
from .keys import Keys
from .safe_headers import SafeHeaders

STATE_PATHS = frozenset({"/health", "/ready"})
"""The paths that say how the server is. Whoever watches over it has no key."""


def is_state(path: str) -> bool:
    """Return True for a path that says how the server is."""
    return path in STATE_PATHS


def is_open(path: str) -> bool:
    """Return True for a path that needs no API key: the state of the server, and the page, which holds no secret."""
    return is_state(path) or path == "/" or path.startswith("/page/")


def layers(server: Server, traces: Sequence[Middleware] = ()) -> list[Middleware]:
    """Return the layers of a server, the outermost first; ``traces`` make spans of what the access log has."""
    settings = server.settings
    cors = Middleware(
        CORSMiddleware,
        allow_origins=settings.allowed_origins,
        allow_methods=("GET", "POST"),
        allow_headers=("*",),
        expose_headers=("x-request-id", "retry-after"),
    )
    return [
        Middleware(SafeHeaders),
        Middleware(Access, contents=settings.log_contents),
        *traces,
        Middleware(Head, hosts=settings.allowed_hosts),
        *([cors] if settings.allowed_origins else []),
        Middleware(Keys, keys=settings.api_keys, is_open=is_open),
        Middleware(Gate, server=server, is_open=is_state),
        Middleware(BodyLimit, max_body=settings.max_body),
    ]
