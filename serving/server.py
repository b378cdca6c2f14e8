"""What every endpoint needs: the models and the settings of the server that it is part of."""

from dataclasses import dataclass

from starlette.requests import Request

from .engine.models import Models
from .metrics.metrics import Metrics
from .settings import Settings


@dataclass
class Server:
    """The state of a server; ``ready`` is False until it may receive requests, and while it ends."""

    models: Models
    settings: Settings
    metrics: Metrics
    ready: bool = False


def server_of(request: Request) -> Server:
    """Return the server that received a request."""
    server: Server = request.app.state.server
    return server
