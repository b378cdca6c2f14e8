"""The asynchronous client, with calls that wait: what is tried with the other client can be tried with it."""

import asyncio
import inspect
from collections.abc import Awaitable, Iterator
from typing import Any

import openai
from openai import AsyncAPIResponse


class Blocking:
    """An object of the asynchronous client: awaits what it returns, and iterates over its streams.

    Args:
        target: the client, or a part of it, or a stream.
        runner: runs all of it on one event loop.
    """

    def __init__(self, target: Any, runner: asyncio.Runner) -> None:
        self._target = target
        self._runner = runner

    def __getattr__(self, name: str) -> Any:
        return self._blocking(getattr(self._target, name))

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return self._blocking(self._target(*arguments, **options))

    def __iter__(self) -> Iterator[Any]:
        iterator = aiter(self._target)
        while True:
            try:
                yield self._runner.run(_awaited(anext(iterator)))
            except StopAsyncIteration:
                return

    def __enter__(self) -> Any:
        return self._blocking(self._runner.run(_awaited(self._target.__aenter__())))

    def __exit__(self, *error: object) -> None:
        self._runner.run(_awaited(self._target.__aexit__(*error)))

    def _blocking(self, value: Any) -> Any:
        if inspect.isawaitable(value):
            value = self._runner.run(_awaited(value))
        is_part = type(value).__module__.startswith("openai.resources")
        is_part = is_part or isinstance(value, openai.AsyncOpenAI | AsyncAPIResponse)
        if is_part or inspect.isroutine(value) or hasattr(value, "__aiter__") or hasattr(value, "__aenter__"):
            return Blocking(value, self._runner)
        return value


async def _awaited(value: Awaitable[Any]) -> Any:
    return await value
