"""What every endpoint needs: the models and the settings of the server that it is part of."""

from dataclasses import dataclass

from starlette.requests import Request

from .engine.models import Models
from .metrics.metrics import Metrics
from .settings import Settings


@dataclass
class Server:
    """The state of a server.

    Attributes:
        ready: it may receive requests: False until the models are loaded, and while the server ends.
        draining: it ends; new requests are answered with 503.
        active: how many requests are being answered, those for its own state not counted.
        failure: why it cannot serve.
    """

    models: Models
    settings: Settings
    metrics: Metrics
    ready: bool = False
    draining: bool = False
    active: int = 0
    failure: Exception | None = None


def server_of(request: Request) -> Server:
    """Return the server that received a request."""
    server: Server = request.app.state.server
    return server
