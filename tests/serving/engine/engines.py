"""What the tests of the engine share: an engine on a small model, a gate that holds it, and an observer that counts."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from intaglio.runtime import Generation, TextGenerator
from intaglio.runtime.generation.events import Event, Waiting
from intaglio.serving.engine.engine import Engine
from intaglio.serving.engine.observer import Observer, RequestRecord
from intaglio.serving.errors import ApiError
from intaglio.serving.settings import Settings

PATIENCE = 60.0


@asynccontextmanager
async def opened(
    generator: TextGenerator, observer: Observer | None = None, **settings: Any
) -> AsyncGenerator[Engine, None]:
    """Yield an engine of a model, which is closed afterwards."""
    made = Settings(**{"max_length": 100, "slots": 1, **settings})
    engine = Engine("lm", generator, made, observer, asyncio.get_running_loop())
    try:
        yield engine
    finally:
        await asyncio.to_thread(engine.close)


async def until(reached: Callable[[], bool]) -> None:
    """Let the loop run until something is so."""
    async with asyncio.timeout(PATIENCE):
        while not reached():
            await asyncio.sleep(0.001)


async def collect(engine: Engine, *requests: Waiting, client: str = "") -> list[tuple[int, Event]]:
    """Run requests together; return all events."""
    return [found async for found in engine.run(requests, client)]


async def result_of(engine: Engine, request: Waiting, client: str = "") -> Generation | ApiError:
    """Run a request; return its result, or the error that refused or ended it."""
    try:
        return results(await collect(engine, request, client=client))[0]
    except ApiError as error:
        return error


def results(events: Sequence[tuple[int, Event]]) -> list[Generation]:
    """Return the results of a call's requests, in their order."""
    found = {index: event.result for index, event in events if event.result is not None}
    return [found[index] for index in sorted(found)]


class Gate:
    """A logits processor that holds the thread of the engine until it is opened."""

    def __init__(self) -> None:
        self._reached = threading.Event()
        self._opened = threading.Event()

    def __call__(self, tokens: Any, logits: Any) -> Any:
        self._reached.set()
        assert self._opened.wait(PATIENCE)
        return logits

    async def reached(self) -> None:
        """Wait until the engine's thread is held."""
        await until(self._reached.is_set)

    def open(self) -> None:
        self._opened.set()


@dataclass
class Counting:
    """An observer that keeps what it receives."""

    records: list[RequestRecord] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)
    counts: int = 0

    def tokens(self, record: RequestRecord, count: int, now: float) -> None:
        assert record not in self.records
        self.counts += count

    def finished(self, record: RequestRecord, now: float) -> None:
        assert all(other is not record for other in self.records)
        self.records.append(record)

    def refused(self, model: str, reason: str) -> None:
        self.refusals.append(reason)

    @property
    def outcomes(self) -> list[str]:
        return sorted(record.outcome or "" for record in self.records)
