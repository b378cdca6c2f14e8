"""What is counted of a request, from the times that the engine tells."""

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest
from intaglio.serving.engine.observer import RequestRecord
from intaglio.serving.metrics.metrics import Metrics
from prometheus_client import CollectorRegistry

MOST_CALLS_A_TOKEN = 10
"""Python functions that one token may cost in the event loop: an increment and an observation, with their locks."""


def value(registry: CollectorRegistry, name: str, **labels: str) -> float | None:
    return registry.get_sample_value(name, {"model_name": "m", **labels})


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(["m", "other"], dict)


def generate(metrics: Metrics, record: RequestRecord, times: list[tuple[float, int]]) -> None:
    """Tell of tokens as the engine does: (time, how many), one event after the other."""
    for now, count in times:
        metrics.requests.tokens(record, count, now)
        record.first_token = record.first_token or now
        record.last_token = now
        record.tokens += count


def test_a_request_is_counted_with_its_phases(metrics: Metrics) -> None:
    record = RequestRecord("m", 100, arrived=10.0, started=10.5, cached_tokens=64)
    generate(metrics, record, [(11.0, 1), (11.25, 1), (12.0, 3)])
    record.outcome = "eos"
    metrics.requests.finished(record, 12.5)
    sums = {
        "vllm:time_to_first_token_seconds": 1.0,
        "vllm:e2e_request_latency_seconds": 2.5,
        "vllm:request_queue_time_seconds": 0.5,
        "vllm:request_prefill_time_seconds": 0.5,
        "vllm:request_decode_time_seconds": 1.0,
        "vllm:request_inference_time_seconds": 1.5,
        "vllm:request_time_per_output_token_seconds": 0.25,
        "vllm:request_prompt_tokens": 100,
        "vllm:request_generation_tokens": 5,
        "vllm:request_max_num_generation_tokens": 5,
    }
    for name, expected in sums.items():
        assert value(metrics.registry, f"{name}_sum") == pytest.approx(expected), name
        assert value(metrics.registry, f"{name}_count") == 1, name
    assert value(metrics.registry, "vllm:prompt_tokens_total") == 100
    assert value(metrics.registry, "vllm:prefix_cache_queries_total") == 100
    assert value(metrics.registry, "vllm:prefix_cache_hits_total") == 64
    assert value(metrics.registry, "vllm:generation_tokens_total") == 5
    assert value(metrics.registry, "vllm:request_success_total", finished_reason="stop") == 1


def test_three_tokens_of_one_event_share_its_gap(metrics: Metrics) -> None:
    record = RequestRecord("m", 1, arrived=0.0, started=0.0)
    generate(metrics, record, [(1.0, 1), (1.75, 3)])
    name = "vllm:inter_token_latency_seconds"
    assert value(metrics.registry, f"{name}_count") == 3
    assert value(metrics.registry, f"{name}_bucket", le="0.3") == 3
    assert value(metrics.registry, f"{name}_sum") == 0.75


@pytest.mark.parametrize(
    ("outcome", "reason"),
    [
        ("eos", "stop"),
        ("stop", "stop"),
        ("length", "length"),
        ("time", "abort"),
        ("timeout", "abort"),
        ("cancelled", "abort"),
        ("error", "error"),
    ],
)
def test_an_outcome_is_a_reason_of_vllm(metrics: Metrics, outcome: str, reason: str) -> None:
    metrics.requests.finished(RequestRecord("m", 1, arrived=0.0, outcome=outcome), 1.0)
    counts = {r: value(metrics.registry, "vllm:request_success_total", finished_reason=r) for r in REASONS}
    assert counts == {r: float(r == reason) for r in REASONS}


REASONS = ("stop", "length", "abort", "error")


def test_a_request_that_never_had_a_slot_has_waited_to_its_end(metrics: Metrics) -> None:
    metrics.requests.finished(RequestRecord("m", 7, arrived=1.0, outcome="timeout"), 4.0)
    assert value(metrics.registry, "vllm:request_queue_time_seconds_sum") == 3.0
    assert value(metrics.registry, "vllm:request_prefill_time_seconds_count") == 0
    assert value(metrics.registry, "vllm:prompt_tokens_total") == 0


def test_refusals_are_counted_by_their_reason(metrics: Metrics) -> None:
    metrics.requests.refused("m", "queue_full")
    metrics.requests.refused("m", "queue_full")
    assert value(metrics.registry, "intaglio:refused_requests_total", reason="queue_full") == 2


def test_two_servers_of_one_process_count_for_themselves(metrics: Metrics) -> None:
    second = Metrics(["m"], dict)
    metrics.requests.finished(RequestRecord("m", 1, arrived=0.0, outcome="eos"), 1.0)
    assert value(metrics.registry, "vllm:request_success_total", finished_reason="stop") == 1
    assert value(second.registry, "vllm:request_success_total", finished_reason="stop") == 0


def test_a_token_costs_few_calls(metrics: Metrics) -> None:
    record = RequestRecord("m", 1, arrived=0.0, started=0.0)
    generate(metrics, record, [(1.0, 1)])
    tokens = 1000

    def decode() -> None:
        for step in range(tokens):
            metrics.requests.tokens(record, 1, 1.0 + step / 100)

    assert calls_of(decode) / tokens <= MOST_CALLS_A_TOKEN + 0.1


def calls_of(work: Callable[[], None]) -> int:
    """Return how many Python functions were called."""
    count = 0

    def counted(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal count
        count += event == "call"

    before = sys.getprofile()
    sys.setprofile(counted)
    try:
        work()
    finally:
        sys.setprofile(before)
    return count
