"""Where spans are sent: over HTTP to an OpenTelemetry collector, in the background."""

import logging
import os
from typing import TYPE_CHECKING

from ... import __version__
from ...errors import DependencyError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

log = logging.getLogger(__name__)

VARIABLES = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
TRACES = "/v1/traces"


def tracer_provider(endpoint: str | None) -> "TracerProvider | None":
    """Return what sends spans; None where no address is set, or OTEL_SDK_DISABLED says no.

    Args:
        endpoint: the address of a collector, as ``http://localhost:4318``. Without it, OpenTelemetry's variables say
            where; where they are set and the packages are not installed, a warning is logged.

    Raises:
        DependencyError: an endpoint is given and the packages are not installed.
    """
    by_variables = any(os.environ.get(name) for name in VARIABLES)
    if os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or not (endpoint or by_variables):
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ModuleNotFoundError as error:
        needed = f"traces need the package {error.name}, which is not installed; "
        needed += "install it with: pip install 'intaglio[tracing]'"
        if endpoint:
            raise DependencyError(needed) from None
        log.warning("%s", needed)
        return None
    address = f"{endpoint.rstrip('/').removesuffix(TRACES)}{TRACES}" if endpoint else None
    resource = Resource.create({"service.name": "intaglio", "service.version": __version__})
    provider = TracerProvider(resource=resource.merge(OTELResourceDetector().detect()))  # OTEL_SERVICE_NAME goes first
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(address)))
    return provider
