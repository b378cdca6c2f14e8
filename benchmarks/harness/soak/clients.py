"""Clients of a server that is to be busy: most read their answer, some leave, and some ask for what is wrong."""

import asyncio
import random
import time
from collections import Counter
from typing import Any

import httpx

Outcomes = Counter[str]
"""How many requests ended how, by kind and status."""

WORDS = "ship harbour winter river bridge song paper stone garden letter window market".split()
KINDS = {"chat": 4, "stream": 4, "choices": 1, "long": 1, "leave early": 2, "leave while waiting": 1, "wrong": 2}
"""Kinds of requests, and how often each is made."""

WRONG: tuple[dict[str, Any], ...] = (
    {"messages": []},
    {"messages": [{"role": "user", "content": "x " * 200_000}]},  # more tokens than any context
    {"temperature": "hot"},
    {"n": 10**9},
    {"stop": ["x"] * 1000},
    {"unknown": 1},
    {"model": "none"},
)
SHARED = "You answer in few words. " * 20
"""A system message that most conversations begin with."""


async def client(address: str, seed: str, end: float, outcomes: Outcomes) -> None:
    """Make requests, one after the other, until the time ``end``."""
    draw = random.Random(seed)
    async with httpx.AsyncClient(base_url=address, timeout=600) as http:
        while time.monotonic() < end:
            kind = draw.choices(tuple(KINDS), tuple(KINDS.values()))[0]
            try:
                outcomes[f"{kind}: {await _request(http, kind, draw)}"] += 1
            except httpx.HTTPError as error:
                outcomes[f"{kind}: {type(error).__name__}"] += 1


async def _request(http: httpx.AsyncClient, kind: str, draw: random.Random) -> str:
    """Make a request; return its status, or "left"."""
    words = 300 if kind == "long" else draw.randrange(3, 30)
    question = " ".join(draw.choices(WORDS, k=words))
    system = [{"role": "system", "content": SHARED}] if draw.random() < 0.7 else []
    body: dict[str, Any] = {
        "messages": [*system, {"role": "user", "content": question}],
        "max_tokens": draw.randrange(4, 64),
        "temperature": draw.choice((0, 1)),
    }
    if kind == "wrong":
        body |= draw.choice(WRONG)
    elif kind == "choices":
        body["n"] = 3
    elif kind == "leave while waiting":
        try:
            async with asyncio.timeout(draw.random() / 2):
                return str((await http.post("/v1/chat/completions", json=body)).status_code)
        except TimeoutError:
            return "left"
    elif kind in ("stream", "leave early"):
        body["stream"] = True
        async with http.stream("POST", "/v1/chat/completions", json=body) as answer:
            lines = 0
            async for _ in answer.aiter_lines():
                lines += 1
                if kind == "leave early" and lines > 6:
                    return "left"
        return str(answer.status_code)
    return str((await http.post("/v1/chat/completions", json=body)).status_code)
