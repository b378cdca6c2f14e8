"""``/health``: the process answers; ``/ready``: it may receive requests."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ..server import server_of


async def health(request: Request) -> Response:
    """Return 200 while the process answers and every model's thread runs; 503 otherwise: restart the process."""
    if not server_of(request).models.healthy:
        return JSONResponse({"status": "the thread of a model has ended; restart the server"}, 503)
    return JSONResponse({"status": "ok"})


async def ready(request: Request) -> Response:
    """Return 200 where requests may come, 503 before that and while the server ends."""
    if server_of(request).ready:
        return JSONResponse({"status": "ready"})
    return JSONResponse({"status": "not ready"}, 503)
