"""A server without models that has endpoints for the tests of HTTP."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
from intaglio.serving.app import create_app
from intaglio.serving.engine.models import Models
from intaglio.serving.forms import Body
from intaglio.serving.http.bodies import read_body
from intaglio.serving.http.streams import event_stream
from intaglio.serving.record import current
from intaglio.serving.settings import Settings
from intaglio.tests.serving.live import live_app
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

Serve = Callable[..., AbstractContextManager[str]]


class Form(Body):
    text: str = ""
    numbers: list[int] | None = None


async def echo(request: Request) -> Response:
    """Return the parameters."""
    form = await read_body(request, Form)
    return JSONResponse({"length": len(form.text), "client": current().client})


async def fails(request: Request) -> Response:
    raise RuntimeError("a secret of the server")


LARGE = 40_000_000


async def large(request: Request) -> Response:
    return Response(b"x" * LARGE)


async def busy(request: Request) -> Response:
    """Stop the loop again and again for the next two seconds."""
    loop, end = asyncio.get_running_loop(), time.monotonic() + 2

    def stop() -> None:
        time.sleep(0.08)
        if time.monotonic() < end:
            loop.call_soon(stop)

    loop.call_soon(stop)
    return Response()


async def endless(request: Request) -> Response:
    """Send events until the client leaves."""

    async def chunks() -> AsyncGenerator[dict[str, Any], None]:
        while True:
            yield {"text": "x" * 60_000}
            await asyncio.sleep(0)

    return await event_stream(request, chunks())


def http_app(**settings: Any) -> Starlette:
    """Return the application with the endpoints of the tests."""
    made = Settings(**settings)
    app = create_app(Models({}, made), made)
    app.router.routes += [
        Route("/echo", echo, methods=["POST"]),
        Route("/fails", fails),
        Route("/endless", endless),
        Route("/large", large),
        Route("/busy", busy, methods=["POST"]),
    ]
    return app


@contextmanager
def serve_http(**settings: Any) -> Iterator[str]:
    """Serve the application; yield its address."""
    with live_app(http_app(**settings)) as address:
        yield address


@pytest.fixture(scope="module")
def plain() -> Iterator[str]:
    """The address of such a server with default settings."""
    with serve_http() as address:
        yield address
