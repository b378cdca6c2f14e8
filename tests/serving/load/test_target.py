"""What the load generator sends, and what it makes of the answers of well and badly behaved servers."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest
from intaglio.errors import UsageError
from intaglio.serving.load.prompts import RandomPrompts
from intaglio.serving.load.sample import Sample
from intaglio.serving.load.target import Target, events, find_model, text_of

Handler = Callable[[httpx.Request], httpx.Response]
MESSAGES = [{"role": "user", "content": "a b"}]


def with_target(handler: Handler, work: Callable[[Target], Awaitable[Any]], **settings: Any) -> Any:
    """Run work with a target whose server is a function."""

    async def run() -> Any:
        async with httpx.AsyncClient(transport=httpx.MockTransport(handler)) as http:
            return await work(Target(http, "http://server", "m", 8, 5.0, **settings))

    return asyncio.run(run())


def sample_of(handler: Handler, **settings: Any) -> Sample:
    async def work(target: Target) -> Sample:
        sample = Sample(0, 0.0)
        await target.send(MESSAGES, sample)
        return sample

    found: Sample = with_target(handler, work, **settings)
    return found


def stream(*chunks: dict[str, Any] | str, status: int = 200) -> Handler:
    lines = [chunk if isinstance(chunk, str) else json.dumps(chunk, ensure_ascii=False) for chunk in chunks]
    body = "".join(f": comment\n\ndata: {line}\n\n" for line in lines).encode()
    return lambda request: httpx.Response(status, content=body)


def delta(**fields: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": fields, "finish_reason": None}]}


USAGE = {"prompt_tokens": 20, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 16}}
LAST = {"choices": [{"index": 0, "delta": {}, "finish_reason": "length"}]}


def test_an_answer_is_read_with_its_usage() -> None:
    chunks = (delta(role="assistant", content=""), delta(content="a\u2028b"), delta(reasoning_content="c"), LAST)
    sample = sample_of(stream(*chunks, {"choices": [], "usage": USAGE}, "[DONE]"))
    assert sample.error is None
    assert len(sample.chunks) == 2
    assert (sample.prompt_tokens, sample.output_tokens, sample.cached_tokens) == (20, 4, 16)
    assert sample.finish_reason == "length"


def test_without_usage_a_part_is_a_token() -> None:
    sample = sample_of(stream(delta(content="a"), delta(content="b"), LAST, "[DONE]"))
    assert sample.output_tokens == 2


def test_completions_have_a_prompt_and_a_text() -> None:
    seen: list[Any] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append((request.url.path, json.loads(request.content)))
        return stream({"choices": [{"index": 0, "text": "x", "finish_reason": "stop"}]}, "[DONE]")(request)

    sample = sample_of(handler, chat=False)
    assert sample.output_tokens == 1
    [(path, body)] = seen
    assert path == "/v1/completions"
    assert body["prompt"] == "a b"
    assert "messages" not in body


@pytest.mark.parametrize(
    ("handler", "error", "detail"),
    [
        (stream(delta(content="a")), "incomplete", ""),
        (stream(delta(content="a"), {"error": {"message": "a pass failed"}}, "[DONE]"), "stream", "a pass failed"),
        (stream("{"), "no JSON", "Expecting"),
        (lambda _: httpx.Response(429, json={"error": {"message": "full"}}), "429", "full"),
        (lambda _: httpx.Response(502, text="<h1>Bad\n gateway</h1>"), "502", "<h1>Bad gateway</h1>"),
    ],
)
def test_a_failure_has_a_word_and_a_reason(handler: Handler, error: str, detail: str) -> None:
    sample = sample_of(handler)
    assert sample.error == error
    assert detail in sample.detail
    assert sample.ended > 0


def test_a_server_that_is_not_there_is_a_failed_connection() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    sample = sample_of(handler)
    assert (sample.error, sample.detail) == ("connection", "refused")


def tokens_of(body: dict[str, Any], per_word: int, overhead: int) -> int:
    return overhead + per_word * sum(len(message["content"].split()) for message in body["messages"])


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        ({"ignore_eos", "min_tokens"}, {"ignore_eos": True}),
        ({"min_tokens"}, {"min_tokens": 8}),
        (set(), {}),
    ],
)
def test_a_server_is_asked_what_it_knows(known: set[str], expected: dict[str, Any]) -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        if not {"ignore_eos", "min_tokens"} & set(body) <= known:
            return httpx.Response(400, json={"error": {"message": "unknown parameter"}})
        return httpx.Response(200, json={"usage": {"prompt_tokens": tokens_of(body, 3, 12)}})

    async def work(target: Target) -> Target:
        await target.prepare()
        return target

    target: Target = with_target(handler, work)
    assert target.body == expected
    assert (target.per_word, target.overhead) == (3.0, 12.0)
    assert target.words(612) == 200
    assert target.words(600, whole=False) == 200


def test_a_server_that_refuses_everything_says_why() -> None:
    async def work(target: Target) -> None:
        await target.prepare()

    with pytest.raises(UsageError, match="answers 401 to a first request: no key; give --model and --api-key"):
        with_target(lambda _: httpx.Response(401, json={"error": {"message": "no key"}}), work)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (httpx.Response(200, json={"data": []}), r"has the models \(none\)"),
        (httpx.Response(200, json={"data": [{"id": "a"}, {"id": "b"}]}), "has the models a, b; give one of them with"),
        (httpx.Response(404), "does not list the models: Client error '404 Not Found'"),
        (httpx.Response(200, text="hello"), "does not list the models: Expecting value"),
    ],
)
def test_a_model_that_is_not_clear_must_be_given(answer: httpx.Response, message: str) -> None:
    async def work(target: Target) -> str:
        return await find_model(target.http, target.url)

    with pytest.raises(UsageError, match=message):
        with_target(lambda _: answer, work)


def test_events_may_be_cut_anywhere() -> None:
    text = "data: one\n\ndata:two\r\n: ping\nevent: x\ndata: \u2028three\n\n".encode()

    async def collected(size: int) -> list[bytes]:
        async def parts() -> AsyncIterator[bytes]:
            for start in range(0, len(text), size):
                yield text[start : start + size]

        return [event async for event in events(parts())]

    for size in range(1, len(text) + 1):
        assert asyncio.run(collected(size)) == [b"one", b"two", "\u2028three".encode()]


def test_random_prompts_share_their_beginning_alone() -> None:
    prompts = RandomPrompts(words=50, prefix=30, seed=3)
    first, second = prompts.messages(0), prompts.messages(1)
    assert first == RandomPrompts(words=50, prefix=30, seed=3).messages(0)
    assert first[0] == second[0]
    assert first[1] != second[1]
    assert [len(message["content"].split()) for message in first] == [30, 50]
    assert text_of(first).count("\n\n") == 1
