"""Answers while they are made: server-sent events, and the end of work whose client has left."""

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from ..errors import ApiError, failed

log = logging.getLogger(__name__)

Result = TypeVar("Result")


async def event_stream(request: Request, chunks: AsyncGenerator[dict[str, Any], None]) -> Response:
    """Return server-sent events, ended by ``[DONE]``. The first chunk is awaited, so that an error has its status.

    An error after the first chunk is an event in OpenAI's form. When the client leaves, the chunks are closed.

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
                yield line(error.as_json())
            except Exception:
                log.exception("a stream of events failed")
                yield line(failed().as_json())
        yield "data: [DONE]\n\n"

    return StreamingResponse(lines(), media_type="text/event-stream", headers={"Cache-Control": "no-cache"})


async def _next(chunks: AsyncGenerator[dict[str, Any], None]) -> dict[str, Any] | None:
    return await anext(chunks, None)


def line(chunk: dict[str, Any]) -> str:
    """Return an event."""
    return f"data: {json.dumps(chunk, ensure_ascii=False, separators=(',', ':'))}\n\n"


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
