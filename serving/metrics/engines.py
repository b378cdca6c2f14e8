"""Gauges of the engines, read when somebody asks for the metrics."""

from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector


class Gauges(Protocol):
    """What the gauges show of an engine."""

    @property
    def running(self) -> int: ...
    @property
    def waiting(self) -> int: ...
    @property
    def cache_usage(self) -> float: ...
    @property
    def kept_prompts(self) -> int: ...


FAMILIES: Mapping[str, tuple[str, Callable[[Gauges], float]]] = {
    "vllm:num_requests_running": ("Requests that have a slot.", lambda engine: engine.running),
    "vllm:num_requests_waiting": ("Requests that wait for a slot.", lambda engine: engine.waiting),
    "vllm:kv_cache_usage_perc": ("Used part of the slots' KV cache, 0 to 1.", lambda engine: engine.cache_usage),
    "vllm:gpu_cache_usage_perc": ("kv_cache_usage_perc under its older name.", lambda engine: engine.cache_usage),
    "intaglio:kept_prompts": ("Prompts that are kept for those that begin alike.", lambda engine: engine.kept_prompts),
}


class EngineCollector(Collector):
    """Reads the gauges of every served model; a model that is not loaded has zeros.

    Args:
        models: the names of the served models.
        engines: returns the engines that are loaded, by name.
    """

    def __init__(self, models: Iterable[str], engines: Callable[[], Mapping[str, Gauges]]) -> None:
        self._models = tuple(models)
        self._engines = engines

    def describe(self) -> Iterable[Metric]:
        """Return nothing, so that registering does not read the engines."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Yield the gauges; ``intaglio:model_loaded`` says which models are in memory."""
        engines = self._engines()
        loaded = GaugeMetricFamily("intaglio:model_loaded", "1 where the model has an engine.", labels=["model_name"])
        for model in self._models:
            loaded.add_metric([model], model in engines)
        yield loaded
        for name, (text, read) in FAMILIES.items():
            family = GaugeMetricFamily(name, text, labels=["model_name"])
            for model in self._models:
                family.add_metric([model], read(engines[model]) if model in engines else 0)
            yield family
