"""``/v1/chat/completions``: the next turn of a conversation."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ...errors import ConstraintError, IntaglioError
from ...runtime.generation.events import Waiting
from ..engine.engine import Engine
from ..errors import refused
from ..http.bodies import read_body
from ..http.streams import event_stream, while_connected
from ..protocol.chat.answer import Completion
from ..protocol.chat.body import ChatBody
from ..protocol.chat.pieces import Choice, Piece
from ..protocol.chat.response_format import constraint_param
from ..protocol.chat.turn import chat_turn
from ..server import server_of


@dataclass(frozen=True)
class Prepared:
    """A turn whose requests are ready for the engine, and its choices, one for each."""

    requests: list[Waiting]
    choices: list[Choice]

    @property
    def prompt_tokens(self) -> int:
        return self.requests[0].prompt_tokens


async def chat_completions(request: Request) -> Response:
    """Answer a conversation, streamed or whole."""
    body = await read_body(request, ChatBody)
    engine = await server_of(request).models.engine(body.model)
    prepared = await asyncio.to_thread(prepare, engine, body)
    assert engine.generator.tokenizer is not None  # it has a chat template, so the turn could be rendered
    with_usage = body.stream_options is not None and body.stream_options.include_usage
    completion = Completion(engine.name, engine.generator.tokenizer, body.logprobs or False, with_usage)
    events = pieces(engine, prepared)
    if body.stream:
        return await event_stream(request, _chunks(completion, prepared, events))
    return JSONResponse(await while_connected(request, _whole(completion, prepared, events)))


def prepare(engine: Engine, body: ChatBody) -> Prepared:
    """Return the requests of a body. It renders, tokenizes and compiles grammars: call it on a thread.

    Raises:
        ApiError: something that cannot be honoured; it names the parameter.
    """
    turn = chat_turn(engine.name, engine.generator, engine.max_length, body)
    try:
        requests = [engine.prepare(turn.tokens, repetition=index, **turn.options) for index in range(turn.count)]
    except IntaglioError as error:
        raise refused(error, _param(error, body)) from None
    return Prepared(requests, turn.choices())


def _param(error: IntaglioError, body: ChatBody) -> str | None:
    """Return the parameter that the runtime refuses: its messages about options begin with their names."""
    if isinstance(error, ConstraintError):
        return constraint_param(body)
    name = str(error).partition(" ")[0]
    return name if name in ChatBody.model_fields else None


async def pieces(engine: Engine, prepared: Prepared) -> AsyncGenerator[tuple[int, list[Piece]], None]:
    """Run a turn; yield the index of a choice and its next pieces, until all choices have ended.

    Closing the generator cancels what has not ended.

    Raises:
        ApiError: as ``Engine.run``.
    """
    async with aclosing(engine.run(prepared.requests)) as events:
        async for index, event in events:
            choice = prepared.choices[index]
            if found := choice.push(event):
                yield index, found
            if all(choice.ended for choice in prepared.choices):
                return


async def _chunks(
    completion: Completion, prepared: Prepared, events: AsyncGenerator[tuple[int, list[Piece]], None]
) -> AsyncGenerator[dict[str, Any], None]:
    begun: set[int] = set()
    async with aclosing(events):
        async for index, found in events:
            if index not in begun:
                begun.add(index)
                yield completion.begin(index)
            for piece in found:
                yield completion.chunk(index, piece)
    if completion.with_usage:
        yield completion.end(prepared.prompt_tokens, prepared.choices)


async def _whole(
    completion: Completion, prepared: Prepared, events: AsyncGenerator[tuple[int, list[Piece]], None]
) -> dict[str, Any]:
    collected: list[list[Piece]] = [[] for _ in prepared.choices]
    async with aclosing(events):
        async for index, found in events:
            collected[index] += found
    return completion.whole(prepared.prompt_tokens, prepared.choices, collected)
