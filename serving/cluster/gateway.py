"""The gateway: reads requests whole, sends each to a replica, and to another one where that dies before it answers."""

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing

from prometheus_client import CONTENT_TYPE_LATEST as METRICS_TYPE
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from ..errors import ApiError
from ..http.inprocess import Answer, Call
from ..settings import Settings
from .metrics import joined
from .prefixes import links

log = logging.getLogger(__name__)

Forward = Callable[[Call, Sequence[int]], AsyncGenerator[list[Message], None]]
"""Sends a request and its links to a replica; yields ASGI's messages of its answer."""


class ReplicaLostError(Exception):
    """The replica that had a request does not exist any more."""


class BrokenOffError(Exception):
    """An answer cannot be completed; the connection is closed, so that the client does not take it for complete."""


class Gateway:
    """The ASGI application of the gateway.

    Args:
        forward: raises ReplicaLostError where the replica dies, and ApiError where no replica takes the request.
        ask_all: sends a request to every replica; returns replica → its answer.
        attempts: to how many replicas a request is sent.
    """

    def __init__(
        self,
        forward: Forward,
        ask_all: Callable[[Call], Awaitable[Mapping[str, Answer]]],
        settings: Settings,
        attempts: int,
    ) -> None:
        self._forward = forward
        self._ask_all = ask_all
        self._settings = settings
        self._attempts = attempts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        try:
            call = await self._read(scope, receive)
            if call is not None and call.path == "/metrics":
                await (await self._metrics(call))(scope, receive, send)
            elif call is not None:
                await self._answer(call, send)
        except ApiError as error:
            await error.response()(scope, receive, send)

    async def _read(self, scope: Scope, receive: Receive) -> Call | None:
        """Return a request with its body; None where the client has left.

        Raises:
            ApiError: the body is too long, or takes too long to arrive.
        """
        body, limit = bytearray(), self._settings.max_body
        try:
            async with asyncio.timeout(self._settings.body_timeout):
                more = True
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return None
                    body += message.get("body", b"")
                    more = message.get("more_body", False)
                    if len(body) > limit:
                        raise ApiError(
                            f"the body is longer than {limit:,} bytes; send less, or serve with a larger max_body",
                            status=413,
                            code="body_too_long",
                        )
        except TimeoutError:
            raise ApiError(
                f"the body has not arrived in {self._settings.body_timeout:g} seconds; send it faster",
                status=408,
                code="body_timeout",
            ) from None
        client = scope.get("client")
        return Call(
            method=scope["method"],
            path=scope.get("raw_path", scope["path"].encode()).decode("latin-1"),
            body=bytes(body),
            query=scope["query_string"],
            headers=tuple((bytes(name), bytes(value)) for name, value in scope["headers"]),
            client=None if client is None else (client[0], client[1]),
        )

    async def _metrics(self, call: Call) -> Response:
        """Return the metrics of all replicas; where one refuses the request, its answer.

        Raises:
            ApiError: no replica has answered.
        """
        answers = await self._ask_all(call)
        if not answers:
            raise _lost("there is no replica to ask for its metrics; try again later")
        for found in answers.values():
            if found.status != 200:
                return Response(found.body, found.status, media_type="application/json")
        return Response(joined({name: found.body.decode() for name, found in answers.items()}), media_type=METRICS_TYPE)

    async def _answer(self, call: Call, send: Send) -> None:
        """Send an answer. A request is sent again where a replica dies before the first bytes of its answer.

        Raises:
            ApiError: no replica has answered.
            BrokenOffError: the replica has died within an answer that cannot say so.
        """
        beginnings = links(call.body, call.headers)
        for _ in range(self._attempts):
            start: Message | None = None
            begun = ended = False
            try:
                async with aclosing(self._forward(call, beginnings)) as batches:
                    async for batch in batches:
                        for message in batch:
                            if message["type"] == "http.response.start":
                                start = message
                                continue
                            if start is not None and not begun:
                                begun = True
                                await send(start)
                            ended = not message.get("more_body", False)
                            await send(message)
                return
            except ReplicaLostError as error:
                log.warning("%s %s: a replica is lost: %s", call.method, call.path, error)
                if ended:
                    return
                if begun:
                    assert start is not None
                    await _break_off(call, start, send)
                    return
        raise _lost(f"{self._attempts} replicas were lost before they answered the request; try again later")


async def _break_off(call: Call, start: Message, send: Send) -> None:
    """End an answer whose replica is lost: with an event that says so, or by closing the connection.

    Raises:
        BrokenOffError: the answer is not a stream of events.
    """
    kind = next((value for name, value in start["headers"] if name.lower() == b"content-type"), b"")
    if not kind.startswith(b"text/event-stream"):
        raise BrokenOffError(f"{call.method} {call.path}: the replica is lost")
    error = _lost("the replica that answered is lost, and the answer is not complete; send the request again")
    if call.path.endswith("/responses"):
        values = {"type": "error", "code": error.code, "message": error.message, "param": None}
        last = f"event: error\ndata: {json.dumps(values)}\n\n"
    else:
        last = f"data: {json.dumps(error.as_json())}\n\ndata: [DONE]\n\n"
    await send({"type": "http.response.body", "body": last.encode(), "more_body": False})


def _lost(message: str) -> ApiError:
    return ApiError(message, status=503, kind="server_error", code="replica_lost", retry_after=1)


async def _lifespan(receive: Receive, send: Send) -> None:
    for state in ("startup", "shutdown"):
        await receive()
        await send({"type": f"lifespan.{state}.complete"})
