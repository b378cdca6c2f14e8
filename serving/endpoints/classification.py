"""``/v1/classify``, ``/v1/score`` and ``/v1/rerank``, as vLLM has them; ``/predict``, text-embeddings-inference's."""

from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ...artifact import Task
from ..errors import ApiError
from ..forms import checked
from ..http.bodies import read_body, read_json
from ..protocol.answers import new_id, now, usage
from ..protocol.heads.bodies import ClassifyBody, RerankBody, ScoreBody
from ..protocol.heads.classes import class_items, classify, ranked, score
from ..protocol.heads.tei import PredictBody, RerankTextsBody
from ..protocol.prompts import as_prompts
from .head_calls import list_response, run_head

CLASSIFIERS: tuple[Task, ...] = ("text-classification",)
SCORERS: tuple[Task, ...] = ("text-classification", "feature-extraction")


async def classes(request: Request) -> Response:
    """Classify texts."""
    body = await read_body(request, ClassifyBody)
    steps = partial(classify, texts=as_prompts(body.input), raw=not body.use_activation, truncation=body.truncation)
    name, found = await run_head(request, body.model, CLASSIFIERS, steps, "input")
    head = {"id": new_id("classify"), "created": now(), "model": name}
    return await list_response(class_items(found.results), **head, usage=usage(found.tokens))


async def scores(request: Request) -> Response:
    """Score pairs of texts."""
    body = await read_body(request, ScoreBody)
    first = [body.text_1] if isinstance(body.text_1, str) else body.text_1
    second = [body.text_2] if isinstance(body.text_2, str) else body.text_2
    if len(first) != len(second) and 1 not in (len(first), len(second)):
        raise ApiError(
            f"text_1 has {len(first)} texts and text_2 {len(second)}; give one for each of the other, or one for all",
            param="text_2",
        )
    count = max(len(first), len(second))
    first, second = (texts * count if len(texts) == 1 else texts for texts in (first, second))
    steps = partial(score, first=first, second=second, raw=not body.use_activation, truncation=body.truncation)
    name, found = await run_head(request, body.model, SCORERS, steps, "text_1")
    items = [{"index": index, "object": "score", "score": value} for index, value in enumerate(found.values)]
    return await list_response(items, id=new_id("score"), created=now(), model=name, usage=usage(found.tokens))


async def ranks(request: Request) -> Response:
    """Rank documents by a query. A body with ``texts`` is text-embeddings-inference's, and so is its answer."""
    values = await read_json(request)
    if isinstance(values, dict) and "texts" in values:
        return await _rank_texts(request, checked(RerankTextsBody, values))
    body = checked(RerankBody, values)
    documents = body.texts
    steps = partial(
        score,
        first=[body.query] * len(documents),
        second=documents,
        raw=not body.use_activation,
        truncation=body.truncation,
    )
    name, found = await run_head(request, body.model, SCORERS, steps, "documents")
    results: list[dict[str, Any]] = []
    for index in ranked(found.values, body.top_n):
        document = {"document": {"text": documents[index]}} if body.return_documents else {}
        results.append({"index": index, "relevance_score": found.values[index], **document})
    answer = {"id": new_id("rerank"), "model": name, "usage": usage(found.tokens), "results": results}
    return JSONResponse(answer)


async def _rank_texts(request: Request, body: RerankTextsBody) -> Response:
    first = [body.query] * len(body.texts)
    steps = partial(score, first=first, second=body.texts, raw=body.raw_scores, truncation=body.truncation)
    _, found = await run_head(request, body.model, SCORERS, steps, "texts")
    order = ranked(found.values, None)
    texts = [{"text": body.texts[index]} if body.return_text else {} for index in order]
    return JSONResponse(
        [{"index": index, **text, "score": found.values[index]} for index, text in zip(order, texts, strict=True)]
    )


async def predict(request: Request) -> Response:
    """Classify texts or pairs of texts as text-embeddings-inference does: every label with its score, best first."""
    body = await read_body(request, PredictBody)
    listed, single = body.listed()
    if len({len(one) for one in listed}) > 1:
        raise ApiError("inputs has texts and pairs of texts; send them apart", param="inputs")
    steps = partial(
        classify,
        texts=[one[0] for one in listed],
        pairs=[one[1] for one in listed] if len(listed[0]) == 2 else None,
        raw=body.raw_scores,
        truncation=body.truncation,
    )
    _, found = await run_head(request, body.model, CLASSIFIERS, steps, "inputs")
    answers = []
    for result in found.results:
        ordered = sorted(result.scores.items(), key=lambda entry: -entry[1])
        answers.append([{"score": value, "label": label} for label, value in ordered])
    return JSONResponse(answers[0] if single else answers)
