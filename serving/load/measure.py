"""A measured load on a server: from the first look at it to the samples."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import httpx

from .prompts import Prompts, RandomPrompts
from .sample import Sample
from .schedule import Load, Run, run
from .target import Target, find_model

Report = Callable[[int, int], None]
"""Receives how many requests have ended, and how many there are; 0 where that is open."""


@dataclass(frozen=True)
class Texts:
    """Lengths of prompts and answers in tokens; ``prompts`` replaces random ones."""

    prompt_tokens: int = 128
    prefix_tokens: int = 0
    new_tokens: int = 64
    prompts: Prompts | None = None


@dataclass(frozen=True)
class Measured:
    """A run, the name of the model, and the share of one processor that the generator itself used."""

    run: Run
    model: str
    client_cpu: float


async def measure(
    url: str,
    load: Load,
    texts: Texts,
    *,
    model: str | None = None,
    chat: bool = True,
    api_key: str | None = None,
    timeout: float = 600.0,
    report: Report = lambda done, total: None,
) -> Measured:
    """Send a load to the server at a URL, with or without ``/v1`` at its end.

    Raises:
        UsageError: the server does not answer, or has several models.
    """
    address = url.rstrip("/").removesuffix("/v1")
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(headers=headers, limits=limits, timeout=None, trust_env=False) as http:
        target = Target(http, address, model or await find_model(http, address), texts.new_tokens, timeout, chat)
        await target.prepare()
        prompts = texts.prompts or random_prompts(target, texts, load.seed)
        total, ended = load.warmup + load.requests if load.requests is not None else 0, 0

        async def send(sample: Sample) -> None:
            nonlocal ended
            await target.send(prompts.messages(sample.number), sample)
            ended += 1
            report(ended, total)

        wall, processor = time.perf_counter(), time.process_time()
        found = await run(load, send)
        used = (time.process_time() - processor) / max(time.perf_counter() - wall, 1e-9)
    return Measured(found, target.model, used)


def random_prompts(target: Target, texts: Texts, seed: int) -> RandomPrompts:
    """Return prompts that have about so many tokens on this server, the shared beginning apart."""
    prefix = target.words(texts.prefix_tokens, whole=False) if texts.prefix_tokens else 0
    return RandomPrompts(target.words(texts.prompt_tokens), prefix, seed)
