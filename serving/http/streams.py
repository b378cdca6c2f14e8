"""Answers while they are made: server-sent events, and the end of work whose client has left."""

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable
from contextlib import aclosing
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from ..errors import ApiError, failed

log = logging.getLogger(__name__)

Result = TypeVar("Result")


async def event_stream(
    request: Request,
    chunks: AsyncGenerator[dict[str, Any], None],
    errors: Callable[[ApiError], Iterable[dict[str, Any]]] = lambda error: [error.as_json()],
    last: str = "data: [DONE]\n\n",
) -> Response:
    """Return server-sent events. The first chunk is awaited, so that an error has its status.

    When the client leaves, the chunks are closed.

    Args:
        errors: the chunks of an error after the first chunk.
        last: what ends the stream.

    Raises:
        ClientLeftError: the client has left before the first chunk.
    """
    try:
        first = await while_connected(request, _next(chunks))
    except BaseException:
        await chunks.aclose()
        raise

    async def lines() -> AsyncGenerator[str, None]:
        async with aclosing(chunks):
            try:
                if first is not None:
                    yield line(first)
                async for chunk in chunks:
                    yield line(chunk)
            except ApiError as error:
                for chunk in errors(error):
                    yield line(chunk)
            except Exception:
                log.exception("a stream of events failed")
                for chunk in errors(failed()):
                    yield line(chunk)
        yield last

    return StreamingResponse(lines(), media_type="text/event-stream", headers={"Cache-Control": "no-cache"})


async def _next(chunks: AsyncGenerator[dict[str, Any], None]) -> dict[str, Any] | None:
    return await anext(chunks, None)


def line(chunk: dict[str, Any]) -> str:
    """Return an event; a chunk with a type has its name."""
    name = f"event: {chunk['type']}\n" if "type" in chunk else ""
    return f"{name}data: {json.dumps(chunk, ensure_ascii=False, separators=(',', ':'))}\n\n"


class ClientLeftError(Exception):
    """The client has closed the connection; there is nobody to answer."""


async def while_connected(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """Return the result of work; cancel it when the client leaves.

    Raises:
        ClientLeftError: it did.
    """

    async def until_left() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    task, left = asyncio.ensure_future(work), asyncio.ensure_future(until_left())
    try:
        await asyncio.wait({task, left}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientLeftError
    finally:
        for other in (task, left):
            other.cancel()
        await asyncio.gather(task, left, return_exceptions=True)
