"""``/metrics`` of a running server."""

import httpx
import pytest
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
