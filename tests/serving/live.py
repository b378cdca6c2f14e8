"""A server that listens on a free port, in a thread of the test's process."""

import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from intaglio.runtime.load import LoadOptions
from intaglio.serving.app import create_app
from intaglio.serving.engine.models import Models, named_models
from intaglio.serving.run import make_server
from intaglio.serving.settings import Settings
from starlette.applications import Starlette


@contextmanager
def live_server(
    artifacts: Mapping[str, Path], load_options: LoadOptions | None = None, **settings: Any
) -> Iterator[str]:
    """Serve artifacts by name; yield the server's address, as ``http://127.0.0.1:43210``."""
    made = Settings(**settings)
    with live_app(create_app(Models(named_models(artifacts), made, load_options or {"threads": 1}), made)) as address:
        yield address


@contextmanager
def live_app(app: Starlette) -> Iterator[str]:
    """Serve an application; yield its address."""
    with running(make_server(app)) as address:
        yield address


@contextmanager
def running(server: uvicorn.Server) -> Iterator[str]:
    """Run a server of uvicorn; yield its address."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        deadline = time.monotonic() + 60
        while not server.started:
            assert thread.is_alive(), "the server has ended"
            assert time.monotonic() < deadline, "the server has not started"
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(30)
            assert not thread.is_alive(), "the server has not ended"
