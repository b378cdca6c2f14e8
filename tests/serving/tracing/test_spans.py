"""Spans of requests to a running server, in memory."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

pytest.importorskip("opentelemetry.sdk", reason="needs intaglio[tracing]")

from intaglio.errors import DependencyError
from intaglio.serving.app import create_app
from intaglio.serving.engine.models import Models, named_models
from intaglio.serving.settings import Settings
from intaglio.serving.tracing import setup
from intaglio.tests.serving.live import live_app
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

SECRET = "Zanzibar"
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
CHAT = {"model": "qwen2", "messages": [{"role": "user", "content": f"The sea of {SECRET}"}], "max_tokens": 5}


@pytest.fixture(scope="module")
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture(scope="module")
def traced(artifacts: dict[str, Path], exporter: InMemorySpanExporter) -> Iterator[str]:
    """The address of a server whose spans the exporter keeps."""
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    settings = Settings(api_keys=("key",))
    models = Models(named_models({"qwen2": artifacts["qwen2"]}), settings, {"threads": 1})
    with live_app(create_app(models, settings, provider)) as address:
        yield address


@pytest.fixture
def http(traced: str, exporter: InMemorySpanExporter) -> Iterator[httpx.Client]:
    exporter.clear()
    with httpx.Client(base_url=traced, timeout=60, headers={"authorization": "Bearer key"}) as client:
        yield client


def only(exporter: InMemorySpanExporter) -> ReadableSpan:
    """Return the only span; it ends after the client has its answer."""
    deadline = time.monotonic() + 20
    while not exporter.get_finished_spans() and time.monotonic() < deadline:
        time.sleep(0.01)
    [span] = exporter.get_finished_spans()
    return span


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


@pytest.mark.parametrize("stream", [False, True])
def test_a_request_is_one_span_with_its_tokens(
    http: httpx.Client, exporter: InMemorySpanExporter, stream: bool
) -> None:
    body = {**CHAT, "stream": stream, "ignore_eos": True}
    body |= {"stream_options": {"include_usage": True}} if stream else {}
    answer = http.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200, answer.text
    data = [line[6:] for line in answer.text.splitlines() if line.startswith("data: {")] if stream else [answer.text]
    usage = json.loads(data[-1])["usage"]
    span = only(exporter)
    assert (span.name, span.kind, span.status.status_code) == ("chat qwen2", SpanKind.SERVER, StatusCode.UNSET)
    found = attributes(span)
    first = found.pop("gen_ai.response.time_to_first_chunk")
    cached = found.pop("gen_ai.usage.cache_read.input_tokens", 0)
    assert cached == usage["prompt_tokens_details"]["cached_tokens"]
    assert found == {
        "http.request.method": "POST",
        "http.response.status_code": 200,
        "http.route": "/v1/chat/completions",
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "intaglio",
        "gen_ai.request.model": "qwen2",
        "gen_ai.response.model": "qwen2",
        "gen_ai.usage.input_tokens": usage["prompt_tokens"],
        "gen_ai.usage.output_tokens": 5,
        "gen_ai.response.finish_reasons": ("length",),
    }
    assert span.start_time is not None
    assert span.end_time is not None
    [event] = span.events
    assert event.name == "gen_ai.first_token"
    assert span.start_time < event.timestamp <= span.end_time
    assert 0 < first <= (span.end_time - span.start_time) / 1e9


def test_choices_of_one_prompt_are_one_span_that_counts_it_once(
    http: httpx.Client, exporter: InMemorySpanExporter
) -> None:
    body = {"model": "qwen2", "prompt": "The sea", "n": 3, "max_tokens": 4, "ignore_eos": True}
    usage = http.post("/v1/completions", json=body).json()["usage"]
    found = attributes(only(exporter))
    assert found["gen_ai.operation.name"] == "text_completion"
    assert found["gen_ai.usage.input_tokens"] == usage["prompt_tokens"]
    assert found["gen_ai.usage.output_tokens"] == 12
    assert found["gen_ai.response.finish_reasons"] == ("length",) * 3


def test_a_trace_of_the_client_goes_on(http: httpx.Client, exporter: InMemorySpanExporter) -> None:
    http.post("/v1/chat/completions", json=CHAT, headers={"traceparent": f"00-{TRACE}-{PARENT}-01"})
    span = only(exporter)
    assert span.context is not None
    assert span.parent is not None
    assert f"{span.context.trace_id:032x}" == TRACE
    assert f"{span.parent.span_id:016x}" == PARENT


@pytest.mark.parametrize("parent", ["", "00-zz-zz-01", f"ff-{TRACE}-{PARENT}-01", "00-" + "0" * 32 + f"-{PARENT}-01"])
def test_a_broken_traceparent_begins_a_new_trace(
    http: httpx.Client, exporter: InMemorySpanExporter, parent: str
) -> None:
    assert http.post("/v1/chat/completions", json=CHAT, headers={"traceparent": parent}).status_code == 200
    assert only(exporter).parent is None


@pytest.mark.parametrize(
    ("path", "body", "key", "name", "status"),
    [
        ("/v1/chat/completions", {**CHAT, "n": -1}, "key", "chat", 400),
        ("/v1/chat/completions", {**CHAT, "model": SECRET}, "key", "chat", 404),
        ("/v1/chat/completions", CHAT, "other", "chat", 401),
        (f"/v1/{SECRET}", {}, "key", "request", 404),
    ],
)
def test_a_refused_request_has_its_status_and_nothing_of_the_client(
    http: httpx.Client, exporter: InMemorySpanExporter, path: str, body: Any, key: str, name: str, status: int
) -> None:
    answer = http.post(path, json=body, headers={"authorization": f"Bearer {key}"})
    assert answer.status_code == status
    span = only(exporter)
    assert span.name == name
    assert attributes(span)["error.type"] == str(status)
    assert span.status.status_code is StatusCode.UNSET  # the client's fault is no error of a server's span
    assert SECRET not in span.to_json()


def test_no_span_has_contents(http: httpx.Client, exporter: InMemorySpanExporter) -> None:
    answer = http.post("/v1/chat/completions", json=CHAT).json()["choices"][0]["message"]["content"]
    text = only(exporter).to_json()
    assert SECRET not in text
    assert answer.strip() not in text


def test_other_paths_have_no_span(http: httpx.Client, exporter: InMemorySpanExporter) -> None:
    for path in ("/health", "/metrics", "/v1/models"):
        assert http.get(path).status_code == 200
    assert exporter.get_finished_spans() == ()


def test_traces_are_off_unless_an_address_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in setup.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    assert setup.tracer_provider(None) is None


@pytest.mark.parametrize(
    ("given", "variable", "expected"),
    [
        ("http://127.0.0.1:4318", None, "http://127.0.0.1:4318/v1/traces"),
        ("http://127.0.0.1:4318/v1/traces/", None, "http://127.0.0.1:4318/v1/traces"),
        (None, "http://127.0.0.1:9", "http://127.0.0.1:9/v1/traces"),
    ],
)
def test_an_option_or_a_variable_says_where_spans_go(
    monkeypatch: pytest.MonkeyPatch, given: str | None, variable: str | None, expected: str
) -> None:
    if variable is not None:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", variable)
    monkeypatch.setenv("OTEL_SERVICE_NAME", "mine")
    provider = setup.tracer_provider(given)
    assert provider is not None
    assert provider.resource.attributes["service.name"] == "mine"
    [processor] = provider._active_span_processor._span_processors
    assert processor.span_exporter._endpoint == expected  # type: ignore[attr-defined]
    provider.shutdown()


def test_traces_can_be_disabled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    assert setup.tracer_provider("http://127.0.0.1:4318") is None


def test_without_the_packages_an_option_is_an_error_and_a_variable_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "opentelemetry.sdk.trace", None)
    message = "traces need the package opentelemetry.sdk.trace, which is not installed; install it with: pip install"
    with pytest.raises(DependencyError, match=message):
        setup.tracer_provider("http://127.0.0.1:4318")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    assert setup.tracer_provider(None) is None
    assert message in caplog.text
