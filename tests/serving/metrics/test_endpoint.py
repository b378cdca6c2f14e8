"""``/metrics`` of a running server."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from intaglio.runtime.generation.events import Event
from intaglio.runtime.generation.scheduler import Scheduler
from intaglio.tests.serving.live import live_server
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

OPENMETRICS = "application/openmetrics-text; version=1.0.0; escaping=allow-utf-8, text/plain; version=0.0.4"


def samples(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Return the samples of Prometheus' text by their names and labels."""
    families = parse_text(text)
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


def counted(http: httpx.Client, name: str, **labels: str) -> float:
    return samples(http.get("/metrics").text).get((name, frozenset(labels.items())), 0.0)


def test_every_model_has_its_series_before_the_first_request(http: httpx.Client) -> None:
    found = samples(http.get("/metrics").text)
    for model in ("qwen2", "exaone4", "sst2"):
        for name in ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc", "generation_tokens_total"):
            assert (f"vllm:{name}", frozenset({("model_name", model)})) in found
    assert any(name == "process_resident_memory_bytes" for name, _ in found)


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ("", "text/plain; version=0.0.4; charset=utf-8"),
        ("text/plain; version=x", "text/plain; version=0.0.4; charset=utf-8"),
        ("application/openmetrics-text; version=..", "text/plain; version=0.0.4; charset=utf-8"),
        (OPENMETRICS, "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=allow-utf-8"),
    ],
)
def test_the_client_chooses_the_form(http: httpx.Client, accept: str, media_type: str) -> None:
    answer = http.get("/metrics", headers={"accept": accept})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == media_type
    parse = parse_openmetrics if "openmetrics" in media_type else parse_text
    assert "vllm:num_requests_running" in {family.name for family in parse(answer.text)}


def test_http_requests_are_counted_by_route_and_status(http: httpx.Client) -> None:
    name = "intaglio:http_requests_total"
    before = counted(http, name, path="/health", method="GET", status="200")
    http.get("/health?secret=1")
    assert counted(http, name, path="/health", method="GET", status="200") == before + 1


def test_what_a_client_sends_is_no_label(http: httpx.Client) -> None:
    name = "intaglio:http_requests_total"
    before = counted(http, name, path="other", method="other", status="404")
    for number in range(5):
        http.request("PROPFIND", f"/no/such/{number}")
    text = http.get("/metrics").text
    assert "/no/such" not in text
    assert "PROPFIND" not in text
    assert counted(http, name, path="other", method="other", status="404") == before + 5


PROMPT = {"model": "qwen2", "prompt": "The sea has been " * 8, "temperature": 0, "ignore_eos": True}


def until(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds; what a client sees may come before the server has counted it."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_request_is_counted_as_its_usage_says(http: httpx.Client) -> None:
    def now(name: str, **labels: str) -> float:
        return counted(http, f"vllm:{name}", model_name="qwen2", **labels)

    names = ("prompt_tokens_total", "generation_tokens_total", "time_to_first_token_seconds_count")
    before = {name: now(name) for name in names}
    ended, gaps = now("request_success_total", finished_reason="length"), now("inter_token_latency_seconds_count")
    usage = http.post("/v1/completions", json={**PROMPT, "max_tokens": 9}).json()["usage"]
    until(lambda: now("request_success_total", finished_reason="length") == ended + 1)
    found = {name: now(name) - before[name] for name in names}
    assert list(found.values()) == [usage["prompt_tokens"], 9, 1]
    assert now("inter_token_latency_seconds_count") - gaps == 9 - 1
    assert now("num_requests_running") == 0
    assert now("kv_cache_usage_perc") == 0


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Semaphore]:
    """As many steps as schedulers may take; all of them at the end."""
    allowed = threading.Semaphore(0)
    step = Scheduler.step

    def one(scheduler: Scheduler) -> list[Event]:
        assert allowed.acquire(timeout=60)
        return step(scheduler)

    monkeypatch.setattr(Scheduler, "step", one)
    yield allowed
    allowed.release(10_000)


def test_gauges_show_a_running_request_and_a_client_that_leaves_is_an_abort(
    artifacts: dict[str, Path], steps: threading.Semaphore
) -> None:
    with (
        live_server({"qwen2": artifacts["qwen2"]}, slots=1, max_queue=0, preload=True) as address,
        httpx.Client(base_url=address, timeout=60) as http,
    ):

        def now(name: str, **labels: str) -> float:
            return counted(http, name, model_name="qwen2", **labels)

        until(lambda: now("intaglio:model_loaded") == 1)  # who waits for it takes a place of the queue
        body = {**PROMPT, "max_tokens": 400, "stream": True}
        steps.release(10)
        with http.stream("POST", "/v1/completions", json=body) as answer:
            lines = answer.iter_lines()  # the response is closed with its iterator
            assert next(lines).startswith("data: ")
            assert now("vllm:num_requests_running") == 1
            assert 0 < now("vllm:kv_cache_usage_perc") <= 1
            assert now("vllm:gpu_cache_usage_perc") > 0
            assert http.post("/v1/completions", json=PROMPT).status_code == 429
            until(lambda: now("intaglio:refused_requests_total", reason="queue_full") == 1)
        steps.release(10_000)
        until(lambda: now("vllm:request_success_total", finished_reason="abort") == 1)
        until(lambda: now("vllm:num_requests_running") == 0)
        name = "intaglio:http_requests_total"
        assert counted(http, name, path="/v1/completions", method="POST", status="429") == 1
        assert counted(http, name, path="/v1/completions", method="POST", status="499") == 1
