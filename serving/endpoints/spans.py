"""``/v1/token_classify``: tags of tokens or entities; ``/v1/answer``: the spans that answer a question."""

from functools import partial

from starlette.requests import Request
from starlette.responses import Response

from ..http.bodies import read_body
from ..protocol.answers import new_id, now, usage
from ..protocol.heads.bodies import AnswerBody, TagBody
from ..protocol.heads.spans import answer, answer_items, tag, tag_items
from .head_calls import list_response, run_head


async def tags(request: Request) -> Response:
    """Tag texts."""
    body = await read_body(request, TagBody)
    texts = [body.input] if isinstance(body.input, str) else body.input
    steps = partial(tag, texts=texts, aggregation=body.aggregation_strategy, truncation=body.truncation)
    name, found = await run_head(request, body.model, ("token-classification",), steps, "input")
    head = {"id": new_id("tags"), "created": now(), "model": name}
    return await list_response(tag_items(found.results), **head, usage=usage(found.tokens))


async def answers(request: Request) -> Response:
    """Answer a question about a context."""
    body = await read_body(request, AnswerBody)
    steps = partial(answer, body=body)
    name, found = await run_head(request, body.model, ("question-answering",), steps, "context")
    head = {"id": new_id("answer"), "created": now(), "model": name}
    return await list_response(answer_items(found.results), **head, usage=usage(found.tokens))
