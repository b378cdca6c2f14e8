"""All metrics of a server, in a registry of its own: several servers in one process do not share counts."""

from collections.abc import Callable, Collection, Mapping

from prometheus_client import CollectorRegistry, Gauge, GCCollector, PlatformCollector, ProcessCollector

from ... import __version__
from .engines import EngineCollector, Gauges
from .http import HttpMetrics
from .requests import RequestMetrics


class Metrics:
    """The metrics of a server.

    Args:
        models: the names of the served models.
        engines: returns the engines that are loaded, by name.

    Attributes:
        registry: what ``/metrics`` shows.
        requests: an observer for the engines.
        http: for the middleware that counts.
    """

    def __init__(self, models: Collection[str], engines: Callable[[], Mapping[str, Gauges]]) -> None:
        self.registry = CollectorRegistry()
        self.requests = RequestMetrics(self.registry, models)
        self.http = HttpMetrics(self.registry)
        self.registry.register(EngineCollector(models, engines))
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        build = Gauge("intaglio:build_info", "1, with the version.", ["version"], registry=self.registry)
        build.labels(__version__).set(1)
