"""ASGI middleware that makes a span of every request to a model, with the attributes of OpenTelemetry's GenAI.

https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-spans/
"""

import time

from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..record import HttpRecord, current

OPERATIONS = {
    "/v1/chat/completions": "chat",
    "/v1/responses": "chat",
    "/v1/completions": "text_completion",
    "/v1/embeddings": "embeddings",
}
"""``gen_ai.operation.name`` of the paths that the conventions have a word for; others have their own path."""

REASONS = {"eos": "stop"}
FIRST_TOKEN = "gen_ai.first_token"
PROVIDER = "intaglio"


class Tracing:
    """Makes the spans. It belongs inside the layer that makes the ``HttpRecord``.

    A trace that the client has begun goes on: ``traceparent`` and ``tracestate`` of W3C.
    """

    def __init__(self, app: ASGIApp, tracer: Tracer) -> None:
        self._app = app
        self._tracer = tracer
        self._propagator = TraceContextTextMapPropagator()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith("/v1/") or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        carrier = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        status = 0

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        with self._tracer.start_as_current_span(
            "request",
            self._propagator.extract(carrier),
            SpanKind.SERVER,
            record_exception=False,  # its text may be of the request
            set_status_on_exception=False,
        ) as span:
            try:
                await self._app(scope, receive, sending)
            except BaseException:
                status = status or 500
                raise
            finally:
                describe(span, scope["path"], status, current())


def describe(span: Span, path: str, status: int, record: HttpRecord) -> None:
    """Set the name and the attributes of a span: the model, numbers of tokens, reasons and times."""
    known = record.model is not None  # then the path is one of the server's own
    operation = OPERATIONS.get(path, path if known else "request")
    span.update_name(f"{operation} {record.model}" if known else operation)
    found = {
        "http.request.method": "POST",
        "http.response.status_code": status or None,
        "http.route": path if known else None,
        "gen_ai.operation.name": operation if known else None,
        "gen_ai.provider.name": PROVIDER,
        "gen_ai.request.model": record.model,
        "gen_ai.response.model": record.model,
        "gen_ai.usage.input_tokens": record.prompt_tokens or None,
        "gen_ai.usage.cache_read.input_tokens": record.cached_tokens or None,
        "gen_ai.usage.output_tokens": record.tokens or None,
        "gen_ai.response.finish_reasons": [REASONS.get(outcome, outcome) for outcome in record.outcomes] or None,
        "error.type": str(status) if status >= 400 else None,
    }
    span.set_attributes({name: value for name, value in found.items() if value is not None})
    if record.first_token is not None:
        span.set_attribute("gen_ai.response.time_to_first_chunk", record.first_token - record.started)
        ago = int((time.monotonic() - record.first_token) * 1e9)
        span.add_event(FIRST_TOKEN, timestamp=time.time_ns() - ago)
    if status >= 500:
        span.set_status(StatusCode.ERROR)


def current_trace() -> str:
    """Return the trace's id in 32 hexadecimal digits; empty outside of one."""
    context = trace.get_current_span().get_span_context()
    return trace.format_trace_id(context.trace_id) if context.is_valid else ""
