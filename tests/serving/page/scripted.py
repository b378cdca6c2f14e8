"""A server of the page whose answers a test writes, chunk by chunk."""

import asyncio
import json
import threading
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from intaglio.serving.endpoints import page
from intaglio.tests.serving.live import running
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

MODEL = {
    "id": "scripted",
    "object": "model",
    "task": "text-generation",
    "family": "exaone4",
    "precision": "int4",
    "cache_dtype": "float32",
    "context_length": 32768,
    "parity": {"verdict": "faithful"},
    "source": {"id": "example/scripted-1.2b", "revision": "0123456789abcdef"},
    "chat": True,
    "thinking": True,
    "tools": True,
}
USAGE = {"prompt_tokens": 120, "completion_tokens": 40, "prompt_tokens_details": {"cached_tokens": 96}}


@dataclass
class Script:
    """What the server answers, and what it was asked.

    Attributes:
        answers: one list of deltas for each answer, in order; ``HOLD`` in it waits until ``go`` is set.
        key: the API key that requests need; None for none.
        bodies: the bodies of the requests for an answer.
        open: how many answers are being sent.
        pace: seconds between two deltas, as of a model.
    """

    answers: list[list[Any]] = field(default_factory=list)
    models: list[dict[str, Any]] = field(default_factory=lambda: [dict(MODEL)])
    key: str | None = None
    status: int = 200
    bodies: list[dict[str, Any]] = field(default_factory=list)
    open: int = 0
    pace: float = 0.0
    go: threading.Event = field(default_factory=threading.Event)


HOLD = object()
"""In an answer: wait until the test says to go on."""


def text(*parts: str) -> list[Any]:
    """Return the deltas of a text."""
    return [{"content": part} for part in parts]


def call(name: str, arguments: dict[str, Any], index: int = 0) -> list[dict[str, Any]]:
    """Return the deltas of a tool call, its arguments in two parts."""
    written = json.dumps(arguments)
    half = len(written) // 2
    begin = {"index": index, "id": f"call_{index}", "type": "function", "function": {"name": name, "arguments": ""}}
    rest = [{"index": index, "function": {"arguments": part}} for part in (written[:half], written[half:])]
    return [{"tool_calls": [part]} for part in (begin, *rest)]


def application(script: Script) -> Starlette:
    """Return the page, and the two paths that a conversation needs."""

    def refused(request: Request) -> Response | None:
        if script.key is not None and request.headers.get("Authorization") != f"Bearer {script.key}":
            return JSONResponse({"error": {"message": "give the API key of this server"}}, 401)
        if script.status != 200:
            error = {"message": "the queue is full; try again later", "code": "queue_full"}
            return JSONResponse({"error": error}, script.status, {"Retry-After": "1"})
        return None

    async def models(request: Request) -> Response:
        return refused(request) or JSONResponse({"object": "list", "data": script.models})

    async def chat(request: Request) -> Response:
        script.bodies.append(await request.json())
        return refused(request) or StreamingResponse(events(script.answers.pop(0)), media_type="text/event-stream")

    async def events(deltas: list[Any]) -> AsyncGenerator[str, None]:
        script.open += 1
        try:
            finish = "stop"
            for delta in deltas:
                while delta is HOLD and not script.go.is_set():
                    await asyncio.sleep(0.005)
                if delta is HOLD:
                    continue
                if "error" in delta:
                    yield event(delta)
                    return
                await asyncio.sleep(script.pace)
                finish = "tool_calls" if "tool_calls" in delta else finish
                yield event({"choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
            yield event({"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
            yield event({"choices": [], "usage": USAGE})
            yield "data: [DONE]\n\n"
        finally:
            script.open -= 1

    return Starlette(
        routes=[
            Route("/", page.page),
            Route("/page/{name:path}", page.page),
            Route("/v1/models", models),
            Route("/v1/chat/completions", chat, methods=["POST"]),
        ]
    )


def event(value: dict[str, Any]) -> str:
    return f"data: {json.dumps(value)}\n\n"


@contextmanager
def scripted_server(script: Script) -> Iterator[str]:
    """Serve the page with a script; yield the address."""
    config = uvicorn.Config(
        application(script), log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=1
    )
    with running(uvicorn.Server(config)) as address:
        try:
            yield address
        finally:
            script.go.set()
