"""A server that is told to end: it refuses new requests and lets running ones end."""

import asyncio
import signal
import threading

import httpx
from intaglio.serving.run import make_server
from intaglio.tests.serving.http.conftest import http_app
from intaglio.tests.serving.live import running
from intaglio.tests.serving.raw import TIMEOUT
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route


def test_a_first_signal_drains() -> None:
    begun, end = threading.Event(), threading.Event()

    async def waits(request: Request) -> Response:
        async with request.app.state.server.models.holding():
            begun.set()
            await asyncio.to_thread(end.wait, TIMEOUT)
        return JSONResponse({"done": True})

    app = http_app()
    app.router.routes.append(Route("/waits", waits))
    answers = []
    server = make_server(app)
    with running(server) as address, httpx.Client(base_url=address, timeout=TIMEOUT) as client:
        answering = threading.Thread(target=lambda: answers.append(httpx.get(f"{address}/waits", timeout=TIMEOUT)))
        answering.start()
        assert begun.wait(TIMEOUT)
        assert client.get("/ready").status_code == 200
        server.handle_exit(signal.SIGTERM, None)
        ready = client.get("/ready")
        assert (ready.status_code, ready.json()) == (503, {"status": "not ready"})
        assert client.get("/health").status_code == 200
        refused = client.post("/echo", json={})
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
        assert refused.headers["connection"] == "close"
        assert refused.json()["error"]["code"] == "shutting_down"
        end.set()
        answering.join(TIMEOUT)
        assert [answer.json() for answer in answers] == [{"done": True}]
