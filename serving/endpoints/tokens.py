"""``/tokenize``, ``/detokenize`` and ``/tokenizer_info``: text to the model's tokens and back, for every task."""

import asyncio
from dataclasses import replace
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ...errors import ArtifactError, InputError
from ...runtime.generation.generator import TextGenerator
from ...runtime.load import Model
from ...runtime.text.tokenizer import Tokenizer
from ..engine import card
from ..errors import ApiError, refused
from ..http.bodies import read_body
from ..protocol.tokens import DetokenizeBody, TokenizeBody, detokenized, text_of, tokenized
from ..server import server_of


async def tokenize(request: Request) -> Response:
    """Return the tokens of a text or a conversation."""
    body = await read_body(request, TokenizeBody)
    server = server_of(request)
    name = server.models.find(body.model).name
    model = await server.models.model(name)
    longest = server.settings.longest(model.manifest.model.context_length)

    def answer() -> dict[str, Any]:
        tokenizer = _tokenizer(model, name)
        chat_format = None
        if isinstance(model, TextGenerator):
            chat_format = replace(model.chat_format, name=f"the model {name!r}")
        try:
            text, special = text_of(body, chat_format)
            return tokenized(tokenizer, text, special=special, strings=body.return_token_strs, longest=longest)
        except ArtifactError as error:  # the template fails on these messages
            raise ApiError(str(error), param="messages") from None
        except InputError as error:
            raise refused(error, "prompt" if body.messages is None else "messages") from None

    return JSONResponse(await asyncio.to_thread(answer))


async def detokenize(request: Request) -> Response:
    """Return the text of tokens."""
    body = await read_body(request, DetokenizeBody)
    models = server_of(request).models
    name = models.find(body.model).name
    model = await models.model(name)

    def answer() -> dict[str, Any]:
        try:
            return {"prompt": detokenized(_tokenizer(model, name), body.tokens, model.manifest.model)}
        except InputError as error:
            raise refused(error, "tokens") from None

    return JSONResponse(await asyncio.to_thread(answer))


async def tokenizer_info(request: Request) -> Response:
    """Return the special tokens and the chat template of a model, which the query may name: ``?model=``."""
    served = server_of(request).models.find(request.query_params.get("model"))
    return JSONResponse(await asyncio.to_thread(card.tokenizer_info, served.folder))


def _tokenizer(model: Model, name: str) -> Tokenizer:
    if model.tokenizer is None:
        raise ApiError(f"the model {name!r} has no tokenizer; give token ids", param="model")
    return model.tokenizer
