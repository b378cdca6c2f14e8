"""A long prompt that arrives while others read their answers: how much longer do they wait for each token?"""

import asyncio
from typing import Any

import httpx

from ....serving.load.prompts import RandomPrompts
from ....serving.load.sample import Sample
from ....serving.load.statistics import spread
from ....serving.load.target import Target, find_model

SETTLE, BEFORE, AFTER = 2.0, 8.0, 2.0
"""Seconds: not counted at first, counted before the long prompt, and waited after its first token."""

LONG_ANSWER = 8


async def long_prompt(address: str, others: int, tokens: int, prompt_tokens: int, new_tokens: int) -> dict[str, Any]:
    """Return the gaps between the others' tokens before the long prompt and while it is read, in seconds.

    Raises:
        SystemExit: a request failed, or the long one was over before it could disturb.
    """
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(limits=limits, timeout=None, trust_env=False) as http:
        target = Target(http, address, await find_model(http, address), new_tokens, 600.0)
        await target.prepare()
        short = RandomPrompts(target.words(prompt_tokens), seed=1)
        loop = asyncio.get_running_loop()
        samples: list[Sample] = []
        done = asyncio.Event()

        async def client() -> None:
            while not done.is_set():
                sample = Sample(len(samples), loop.time())
                samples.append(sample)
                await target.send(short.messages(sample.number), sample)

        clients = [asyncio.create_task(client()) for _ in range(others)]
        while sum(bool(sample.chunks) for sample in samples) < others:
            await asyncio.sleep(0.05)
        start = loop.time() + SETTLE
        await asyncio.sleep(SETTLE + BEFORE)
        long = Sample(-1, loop.time())
        last = Target(http, address, target.model, LONG_ANSWER, 600.0, body=target.body)
        await last.send(RandomPrompts(target.words(tokens), seed=2).messages(0), long)
        await asyncio.sleep(AFTER)
        done.set()
        for task in clients:
            task.cancel()
        await asyncio.gather(*clients, return_exceptions=True)
    if long.error is not None or not long.chunks:
        raise SystemExit(f"the long prompt failed: {long.error} {long.detail}")
    if failed := [sample for sample in samples if sample.error not in (None, "incomplete")]:
        raise SystemExit(f"a request beside the long prompt failed: {failed[0].error} {failed[0].detail}")
    return gaps(samples, long, start)


def gaps(samples: list[Sample], long: Sample, start: float) -> dict[str, Any]:
    """Return the spreads of the gaps from ``start`` on, before the long prompt and until its first token."""
    pairs = [pair for sample in samples for pair in zip(sample.chunks, sample.chunks[1:], strict=False)]
    first = long.chunks[0]
    before = spread([after - at for at, after in pairs if at >= start and after <= long.sent])
    during = spread([after - at for at, after in pairs if after > long.sent and at < first])
    if before is None or during is None:
        raise SystemExit("the others had no tokens before the long prompt, or none while it was read")
    return {
        "prompt_tokens": long.prompt_tokens,
        "long_first_token": first - long.sent,
        "before": before,
        "during": during,
        "p99_ratio": during["p99"] / before["p50"],
        "max_ratio": during["max"] / before["p50"],
    }
