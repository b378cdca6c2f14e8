"""Many requests at once, of mixed lengths, some of them left, get the answers that they get alone."""

import asyncio
import json
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from intaglio import QuantizeOptions, quantize
from intaglio.runtime import Generation, TextGenerator, load
from intaglio.tests.serving.engine.engines import PATIENCE, opened, until
from intaglio.tests.serving.engine.traffic import LOGPROBS, Ask, asks, farthest, tolerance
from intaglio.tests.serving.live import live_server

CHECKPOINTS = Path(__file__).parents[2] / "checkpoints"
FAMILIES = ("qwen2", "exaone4")
PRECISIONS = ("fp32", "int4")


@pytest.fixture(scope="module")
def quantized(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The tiny checkpoints in int4, by name."""
    place = tmp_path_factory.mktemp("int4")
    for name in FAMILIES:
        quantize(CHECKPOINTS / f"tiny-{name}", place / name, options=QuantizeOptions(method="rtn"))
    return {name: place / name for name in FAMILIES}


async def answer(engine: Any, ask: Ask) -> tuple[Generation | None, int]:
    """Run a request, or leave it; return its result, and how many tokens were not read again."""
    options: dict[str, Any] = {"max_new_tokens": ask.new_tokens, "temperature": 0.0, "logprobs": LOGPROBS}
    request = engine.prepare(list(ask.prompt), **options)
    read, result, cached = 0, None, 0
    async with aclosing(engine.run([request])) as events:
        async for _, event in events:
            read += 1
            if ask.leaves_after is not None and read >= ask.leaves_after:
                return None, 0
            result, cached = event.result, event.cached_tokens
    return result, cached


async def answers(lm: TextGenerator, some: Sequence[Ask], **settings: Any) -> int:
    """Check that requests that come within a short time get their answers; return how many tokens were read once."""
    random = np.random.default_rng(1)
    async with opened(lm, max_length=512, max_queue=len(some), **settings) as engine:

        async def come(ask: Ask, turns: int) -> tuple[Generation | None, int]:
            for _ in range(turns):
                await asyncio.sleep(0.001)
            return await answer(engine, ask)

        found = await asyncio.gather(*(come(ask, int(random.integers(0, 40))) for ask in some))
        await until(lambda: engine.running + engine.waiting == 0)
    for ask, (result, _) in zip(some, found, strict=True):
        assert result is not None or ask.leaves_after is not None
        if result is not None:
            assert (result.token_ids, result.text, result.finish_reason) == (
                ask.alone.token_ids,
                ask.alone.text,
                ask.alone.finish_reason,
            )
            assert farthest(result.logprobs, ask.alone.logprobs) <= tolerance(lm)
    assert sum(result is not None for result, _ in found) > len(some) / 2
    return sum(cached for _, cached in found)


@pytest.mark.parametrize("name", FAMILIES)
def test_some_requests_at_once(artifacts: dict[str, Path], name: str) -> None:
    with load(artifacts[name], task="text-generation", threads=1) as lm:
        some = asks(lm, 16, seed=0)
        asyncio.run(answers(lm, some, slots=4, kept_prompts=0))
        cached = asyncio.run(answers(lm, some, slots=4, kept_prompts=2))
        assert cached > 0 or name == "exaone4"  # a window has dropped what a shorter beginning needs


@pytest.mark.slow
@pytest.mark.parametrize("kept_prompts", [0, 4])
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", FAMILIES)
def test_200_requests_at_once(
    artifacts: dict[str, Path], quantized: dict[str, Path], name: str, precision: str, kept_prompts: int
) -> None:
    folder = (artifacts if precision == "fp32" else quantized)[name]
    with load(folder, task="text-generation", threads=1) as lm:
        some = asks(lm, 200, seed=2)
        asyncio.run(answers(lm, some, slots=8, kept_prompts=kept_prompts))
    with live_server({name: folder}, slots=8, kept_prompts=kept_prompts, max_queue=200) as address:
        asyncio.run(_over_http(address, some, tolerance(lm)))


async def _over_http(address: str, some: Sequence[Ask], within: float) -> None:
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=address, timeout=10 * PATIENCE, limits=limits) as client:
        found = await asyncio.gather(*(_ask(client, ask) for ask in some))
    answered = 0
    for ask, choice in zip(some, found, strict=True):
        if choice is not None:
            answered += 1
            assert choice["text"] == ask.alone.text
            assert choice["finish_reason"] == {"length": "length", "eos": "stop"}[ask.alone.finish_reason]
            assert ask.alone.logprobs is not None
            pairs = zip(choice["token_logprobs"], ask.alone.logprobs, strict=True)
            assert max(abs(one - entry.logprob) for one, entry in pairs) <= within
    assert answered > len(some) / 2


async def _ask(client: httpx.AsyncClient, ask: Ask) -> dict[str, Any] | None:
    """Send a request; return its text, finish reason and log-probabilities; None where the client has left."""
    body: dict[str, Any] = {"prompt": list(ask.prompt), "max_tokens": ask.new_tokens, "temperature": 0}
    body |= {"logprobs": LOGPROBS, "stream": ask.streamed}
    if not ask.streamed:
        sent = asyncio.create_task(client.post("/v1/completions", json=body))
        if ask.leaves_after is not None:
            await asyncio.wait({sent}, timeout=ask.leaves_after / 10)
            if not sent.done():
                sent.cancel()
                return None
        response = await sent
        assert response.status_code == 200, response.text
        (choice,) = response.json()["choices"]
        return {**choice, "token_logprobs": choice["logprobs"]["token_logprobs"]}
    text, reason, logprobs, read = "", None, [], 0
    async with client.stream("POST", "/v1/completions", json=body) as stream:
        assert stream.status_code == 200
        async for line in stream.aiter_lines():
            if not line.startswith("data: {"):
                continue
            read += 1
            if ask.leaves_after is not None and read >= ask.leaves_after:
                return None
            (choice,) = json.loads(line.removeprefix("data: "))["choices"]
            text += choice["text"]
            reason = choice["finish_reason"] or reason
            logprobs += choice["logprobs"]["token_logprobs"]
    return {"text": text, "finish_reason": reason, "token_logprobs": logprobs}
