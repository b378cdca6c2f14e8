"""Counts and times of HTTP requests, by path and status."""

import time
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .buckets import FIRST_TOKEN

METHODS = ("GET", "POST", "HEAD", "OPTIONS", "DELETE", "PUT", "PATCH")
OTHER = "other"


class HttpMetrics:
    """The metrics of HTTP. A path's label is that of its route and not what the client sent; 499: the client left."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests = Counter(
            "intaglio:http_requests", "HTTP requests, answered.", ["path", "method", "status"], registry=registry
        )
        self.seconds = Histogram(
            "intaglio:http_request_duration_seconds",
            "Seconds from an HTTP request to the end of its answer.",
            ["path"],
            buckets=FIRST_TOKEN,
            registry=registry,
        )
        self.running = Gauge(
            "intaglio:http_requests_running", "HTTP requests that are being answered.", registry=registry
        )


class HttpCounting:
    """ASGI middleware that counts every request, also those that the layers below refuse.

    Args:
        routes: of the application; their paths are the labels.
    """

    def __init__(self, app: ASGIApp, metrics: HttpMetrics, routes: Iterable[BaseRoute]) -> None:
        self._app = app
        self._metrics = metrics
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun, status, ended, left = time.monotonic(), 500, False, False

        async def received() -> Message:
            nonlocal left
            message = await receive()
            left = left or message["type"] == "http.disconnect"
            return message

        async def counted(message: Message) -> None:
            nonlocal status, ended
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)
            if message["type"] == "http.response.body":
                ended = not message.get("more_body", False)

        self._metrics.running.inc()
        path = self._label(scope)
        try:
            await self._app(scope, received, counted)
        finally:
            if not ended:
                status = 499 if left else 500
            self._metrics.running.dec()
            method = scope["method"] if scope["method"] in METHODS else OTHER
            self._metrics.requests.labels(path, method, str(status)).inc()
            self._metrics.seconds.labels(path).observe(time.monotonic() - begun)

    def _label(self, scope: Scope) -> str:
        """Return the path of the route that a request takes."""
        for route in self._routes:
            if route.matches(scope)[0] is not Match.NONE:
                return getattr(route, "path", OTHER) or "/"
        return OTHER
