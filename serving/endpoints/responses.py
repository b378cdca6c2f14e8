"""``/v1/responses``: a turn of chat in the form of the Responses protocol; nothing is stored."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ..errors import ApiError
from ..forms import checked
from ..http.bodies import read_body
from ..http.streams import event_stream, while_connected
from ..protocol.chat.answer import usage_of
from ..protocol.chat.body import ChatBody
from ..protocol.chat.pieces import Piece
from ..protocol.responses.body import ResponsesBody
from ..protocol.responses.response import ResponseInProgress
from ..protocol.responses.turn import turn_of
from ..server import server_of
from .chat import Prepared, pieces, prepare

Pieces = AsyncGenerator[tuple[int, list[Piece]], None]


async def responses(request: Request) -> Response:
    """Answer an input, streamed or whole."""
    body = await read_body(request, ResponsesBody)
    turn = turn_of(body)
    engine = await server_of(request).models.engine(body.model)
    try:
        prepared = await asyncio.to_thread(prepare, engine, checked(ChatBody, turn.chat))
    except ApiError as error:
        raise turn.error(error) from None
    assert engine.generator.tokenizer is not None  # the turn has been rendered
    response = ResponseInProgress(body, engine.name, engine.generator.tokenizer)
    written = pieces(engine, prepared)
    if body.stream:
        return await event_stream(request, _events(response, prepared, written), response.fail, last="")
    return JSONResponse(await while_connected(request, _whole(response, prepared, written)))


async def _events(
    response: ResponseInProgress, prepared: Prepared, written: Pieces
) -> AsyncGenerator[dict[str, Any], None]:
    """Yield the typed events; the first when the first piece is there, so that a refusal has its status."""
    begun = False
    async with aclosing(written):
        async for _, found in written:
            for event in [] if begun else response.begin():
                yield event
            begun = True
            for piece in found:
                for event in response.add(piece):
                    yield event
    for event in response.end(usage_of(prepared.prompt_tokens, prepared.choices)):
        yield event


async def _whole(response: ResponseInProgress, prepared: Prepared, written: Pieces) -> dict[str, Any]:
    async with aclosing(written):
        async for _, found in written:
            for piece in found:
                response.add(piece)
    last = response.end(usage_of(prepared.prompt_tokens, prepared.choices))[-1]
    whole: dict[str, Any] = last["response"]
    return whole
