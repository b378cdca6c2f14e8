"""The application: paths, errors, and what begins and ends with it."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from .. import __version__
from ..errors import InputError, IntaglioError
from .endpoints import (
    chat,
    classification,
    completions,
    embeddings,
    health,
    page,
    responses,
    served,
    spans,
    tokens,
)
from .endpoints import metrics as prometheus
from .engine.models import Models
from .errors import ApiError, refused
from .http.layers import layers
from .http.streams import ClientLeftError
from .metrics.http import HttpCounting
from .metrics.metrics import Metrics
from .server import Server
from .settings import Settings
from .tracing.setup import tracer_provider

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

MOST_PATH = 200  # characters of a path in a message


def _posts(endpoint: Callable[[Request], Awaitable[Response]], *paths: str) -> list[Route]:
    return [Route(path, endpoint, methods=["POST"]) for path in paths]


ROUTES = [
    Route("/", page.page),
    Route("/page/{name:path}", page.page),
    Route("/health", health.health),
    Route("/ready", health.ready),
    Route("/metrics", prometheus.metrics),
    Route("/version", served.version),
    Route("/v1/models", served.models),
    Route("/v1/models/{name:path}", served.model),
    Route("/v1/chat/completions", chat.chat_completions, methods=["POST"]),
    Route("/v1/completions", completions.completions, methods=["POST"]),
    Route("/v1/responses", responses.responses, methods=["POST"]),
    *_posts(embeddings.embeddings, "/v1/embeddings"),
    *_posts(embeddings.embed_texts, "/embed"),
    *_posts(classification.classes, "/v1/classify", "/classify"),
    *_posts(classification.scores, "/v1/score", "/score"),
    *_posts(classification.ranks, "/v1/rerank", "/v2/rerank", "/rerank"),
    *_posts(classification.predict, "/predict"),
    *_posts(spans.tags, "/v1/token_classify", "/token_classify"),
    *_posts(spans.answers, "/v1/answer", "/answer"),
    *_posts(tokens.tokenize, "/tokenize"),
    *_posts(tokens.detokenize, "/detokenize"),
    Route("/tokenizer_info", tokens.tokenizer_info),
]


def create_app(models: Models, settings: Settings, tracing: "TracerProvider | None" = None) -> Starlette:
    """Return the application of a server.

    Args:
        tracing: what makes and sends spans; None for what the settings and OpenTelemetry's variables say.
    """
    tracing = tracing or tracer_provider(settings.otlp_endpoint)
    metrics = Metrics(models.served, lambda: models.engines)
    models.observer = metrics.requests
    server = Server(models, settings, metrics)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncGenerator[None, None]:
        loading = asyncio.create_task(_load(server))
        yield
        server.ready = False
        loading.cancel()
        await asyncio.gather(loading, return_exceptions=True)
        await models.close()
        if tracing is not None:
            await asyncio.to_thread(tracing.shutdown)  # sends the last spans

    app = Starlette(
        routes=ROUTES,
        middleware=[
            Middleware(HttpCounting, metrics=metrics.http, routes=ROUTES),
            *layers(server, _traces(tracing)),
            Middleware(HoldsModels, models=models),
        ],
        lifespan=lifespan,
        exception_handlers={
            ApiError: _api_error,
            ClientLeftError: _client_left,
            HTTPException: _http_error,
            IntaglioError: _intaglio_error,
        },
    )
    app.router.redirect_slashes = False  # the address to redirect to would be made of the client's Host header
    app.state.server = server
    return app


def _traces(tracing: "TracerProvider | None") -> list[Middleware]:
    """Return the layer that makes spans, where there is somewhere to send them."""
    if tracing is None:
        return []
    from .tracing.spans import Tracing

    return [Middleware(Tracing, tracer=tracing.get_tracer("intaglio", __version__))]


async def _load(server: Server) -> None:
    """Load the models that are to be loaded at the start; then the server is ready, unless it ends by now."""
    try:
        if server.settings.preload:
            await server.models.preload()
    except Exception as error:
        if not server.draining:
            server.failure = error
    else:
        server.ready = not server.draining


class HoldsModels:
    """Keeps the models of a request in memory until its answer has been sent."""

    def __init__(self, app: ASGIApp, models: Models) -> None:
        self._app = app
        self._models = models

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._models.holding():
            await self._app(scope, receive, send)


async def _api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return error.response()


async def _client_left(request: Request, error: Exception) -> Response:
    """Return what nobody reads, with the status that nginx logs for it."""
    return Response(status_code=499)


async def _http_error(request: Request, error: Exception) -> Response:
    """Answer a wrong path or method in OpenAI's form."""
    assert isinstance(error, HTTPException)
    message = f"{request.method} {request.scope['path'][:MOST_PATH]}: {error.detail}"
    response = ApiError(message, status=error.status_code).response()
    response.headers.update(error.headers or {})  # Allow, of 405
    return response


async def _intaglio_error(request: Request, error: Exception) -> Response:
    """Answer what the runtime refuses."""
    assert isinstance(error, IntaglioError)
    if not isinstance(error, InputError):
        raise error  # logged, and answered with 500
    return refused(error).response()
