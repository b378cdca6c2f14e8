"""``/v1/models``: what the server offers; ``/version``."""

import asyncio

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ... import __version__
from ..engine.card import model_card
from ..server import server_of


async def models(request: Request) -> Response:
    """Return the cards of all models."""
    server = server_of(request)
    loaded = server.models.loaded
    cards = [
        await asyncio.to_thread(model_card, served, server.settings, loaded=name in loaded)
        for name, served in server.models.served.items()
    ]
    return JSONResponse({"object": "list", "data": cards})


async def model(request: Request) -> Response:
    """Return the card of one model."""
    server = server_of(request)
    served = server.models.find(request.path_params["name"])
    loaded = served.name in server.models.loaded
    return JSONResponse(await asyncio.to_thread(model_card, served, server.settings, loaded=loaded))


async def version(request: Request) -> Response:
    """Return the version of the package."""
    return JSONResponse({"version": __version__})
