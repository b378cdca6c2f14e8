"""``/v1/embeddings``: one vector for each input; and ``/embed``, text-embeddings-inference's form of it."""

from functools import partial

from starlette.requests import Request
from starlette.responses import Response

from ...artifact import Task
from ..errors import ApiError
from ..http.bodies import read_body
from ..protocol.answers import usage
from ..protocol.heads.bodies import EmbeddingBody
from ..protocol.heads.embedding import embed, embedding_items
from ..protocol.heads.tei import EmbedBody
from ..protocol.prompts import as_prompts
from .head_calls import array_response, list_response, run_head

TASKS: tuple[Task, ...] = ("feature-extraction",)


async def embeddings(request: Request) -> Response:
    """Embed texts."""
    body = await read_body(request, EmbeddingBody)
    if body.prompt_name is not None and body.input_type is not None:
        raise ApiError("prompt_name and input_type both name the model's prompt; give one", param="input_type")
    steps = partial(
        embed,
        texts=as_prompts(body.input),
        prompt_name=body.prompt_name or body.input_type,
        truncation=body.truncation,
        dimensions=body.dimensions,
    )
    name, found = await run_head(request, body.model, TASKS, steps, "input")
    items = embedding_items(found.vectors, body.encoding_format)
    return await list_response(items, model=name, usage=usage(found.tokens))


async def embed_texts(request: Request) -> Response:
    """Embed texts as text-embeddings-inference does: the answer is the vectors alone."""
    body = await read_body(request, EmbedBody)
    steps = partial(
        embed,
        texts=as_prompts(body.inputs),
        prompt_name=body.prompt_name,
        normalize=body.normalize,
        truncation=body.truncation,
        dimensions=body.dimensions,
    )
    _, found = await run_head(request, body.model, TASKS, steps, "inputs")
    return await array_response([vector.tolist() for vector in found.vectors])
