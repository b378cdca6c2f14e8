"""Counters and histograms of the engines' requests, under vLLM's names."""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram

from ..engine.observer import RequestRecord
from .buckets import FIRST_TOKEN, REQUEST, TOKEN_GAP, TOKENS

COUNTERS = {
    "prompt_tokens": "Tokens of prompts, those that were not read again included.",
    "generation_tokens": "Tokens that were generated.",
    "prefix_cache_queries": "Tokens of prompts that were looked up among the prompts that are kept.",
    "prefix_cache_hits": "Tokens of prompts that were not read again.",
}
HISTOGRAMS = {
    "time_to_first_token_seconds": ("Seconds from a request's arrival to its first token.", FIRST_TOKEN),
    "inter_token_latency_seconds": ("Seconds between two tokens of a request.", TOKEN_GAP),
    "request_time_per_output_token_seconds": ("Mean seconds between the tokens of a request.", TOKEN_GAP),
    "e2e_request_latency_seconds": ("Seconds from a request's arrival to its end.", REQUEST),
    "request_queue_time_seconds": ("Seconds from a request's arrival to its slot.", REQUEST),
    "request_inference_time_seconds": ("Seconds from a request's slot to its last token.", REQUEST),
    "request_prefill_time_seconds": ("Seconds from a request's slot to its first token.", REQUEST),
    "request_decode_time_seconds": ("Seconds from a request's first token to its last.", REQUEST),
    "request_prompt_tokens": ("Tokens of a request's prompt.", TOKENS),
    "request_generation_tokens": ("Tokens that a request generated.", TOKENS),
    "request_max_num_generation_tokens": ("Tokens of the longest choice of a request.", TOKENS),
}
REASONS = {
    "eos": "stop",
    "stop": "stop",
    "length": "length",
    "time": "abort",
    "timeout": "abort",
    "cancelled": "abort",
    "error": "error",
}
"""vLLM's ``finished_reason`` of each outcome of a request."""

MODEL = "model_name"


class RequestMetrics:
    """An observer that counts. Labels are names of served models and fixed words, never what a client sends.

    The metrics of a model are looked up once, since that costs more than counting; so they are there, at zero, before
    its first request.
    """

    def __init__(self, registry: CollectorRegistry, models: Iterable[str]) -> None:
        models = tuple(models)
        counters = {name: Counter(f"vllm:{name}", text, [MODEL], registry=registry) for name, text in COUNTERS.items()}
        histograms = {
            name: Histogram(f"vllm:{name}", text, [MODEL], buckets=buckets, registry=registry)
            for name, (text, buckets) in HISTOGRAMS.items()
        }
        ended = Counter(
            "vllm:request_success",
            "Requests that have ended, by reason.",
            [MODEL, "finished_reason"],
            registry=registry,
        )
        reasons = dict.fromkeys(REASONS.values())
        self._counters = {model: {name: one.labels(model) for name, one in counters.items()} for model in models}
        self._histograms = {model: {name: one.labels(model) for name, one in histograms.items()} for model in models}
        self._ended = {model: {reason: ended.labels(model, reason) for reason in reasons} for model in models}
        self._refused = Counter(
            "intaglio:refused_requests", "Requests that were not admitted.", [MODEL, "reason"], registry=registry
        )

    def tokens(self, record: RequestRecord, count: int, now: float) -> None:
        """Count tokens of a request; the record still has the times of the tokens before them."""
        counters, histograms = self._counters[record.model], self._histograms[record.model]
        counters["generation_tokens"].inc(count)
        if record.first_token is None:
            histograms["time_to_first_token_seconds"].observe(now - record.arrived)
            counters["prompt_tokens"].inc(record.prompt_tokens)
            counters["prefix_cache_queries"].inc(record.prompt_tokens)
            counters["prefix_cache_hits"].inc(record.cached_tokens)
        elif record.last_token is not None:
            gap = (now - record.last_token) / count
            for _ in range(count):
                histograms["inter_token_latency_seconds"].observe(gap)

    def finished(self, record: RequestRecord, now: float) -> None:
        """Count a request that has ended, with the times of the phases that it reached."""
        self._ended[record.model][REASONS.get(record.outcome or "", "error")].inc()
        histograms = self._histograms[record.model]
        histograms["e2e_request_latency_seconds"].observe(now - record.arrived)
        histograms["request_prompt_tokens"].observe(record.prompt_tokens)
        histograms["request_generation_tokens"].observe(record.tokens)
        histograms["request_max_num_generation_tokens"].observe(record.tokens)
        started, first, last = record.started, record.first_token, record.last_token
        histograms["request_queue_time_seconds"].observe((now if started is None else started) - record.arrived)
        if started is None or first is None or last is None:
            return
        histograms["request_prefill_time_seconds"].observe(first - started)
        histograms["request_decode_time_seconds"].observe(last - first)
        histograms["request_inference_time_seconds"].observe(last - started)
        if record.tokens > 1:
            histograms["request_time_per_output_token_seconds"].observe((last - first) / (record.tokens - 1))

    def refused(self, model: str, reason: str) -> None:
        """Count a request that was not admitted."""
        self._refused.labels(model, reason).inc()
