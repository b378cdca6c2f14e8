"""``/metrics``: the server's figures for Prometheus."""

from prometheus_client.exposition import choose_encoder
from starlette.requests import Request
from starlette.responses import Response

from ..server import server_of


async def metrics(request: Request) -> Response:
    """Return the metrics in the form that the client accepts: OpenMetrics, or Prometheus' text."""
    try:
        encode, media_type = choose_encoder(request.headers.get("accept", ""))
    except (TypeError, ValueError):  # a version that is not a number
        encode, media_type = choose_encoder("")
    return Response(encode(server_of(request).metrics.registry), media_type=media_type)
