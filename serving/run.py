"""Run the application with uvicorn."""

import uvicorn
from starlette.applications import Starlette


def make_server(app: Starlette) -> uvicorn.Server:
    """Return a uvicorn server of an application; ``run(sockets=[...])`` serves until it is told to end."""
    config = uvicorn.Config(app, log_config=None, access_log=False, server_header=False, lifespan="on")
    return uvicorn.Server(config)
