"""When requests are sent: at random times whatever the server does (open loop), or by so many clients in turn (closed).

An open loop shows what users see who do not wait for each other. A closed loop keeps the number of requests constant.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from itertools import count

from .sample import Sample

Send = Callable[[Sample], Awaitable[None]]
"""Sends one request and fills in its sample; it does not raise."""


@dataclass(frozen=True)
class Load:
    """A load.

    Attributes:
        rate: requests a second at times of a Poisson process; None for a closed loop.
        clients: of a closed loop; each sends its next request when the last one has ended.
        requests: how many are counted; None for as many as ``seconds`` hold.
        seconds: how long requests are sent, after the warm-up; None for ``requests``.
        warmup: how many requests are sent first and not counted.
        seed: of the random times.
    """

    rate: float | None = None
    clients: int = 1
    requests: int | None = None
    seconds: float | None = None
    warmup: int = 0
    seed: int = 0


@dataclass(frozen=True)
class Run:
    """The counted samples of a load, and the window [start, end] that its throughput is of."""

    samples: list[Sample]
    start: float
    end: float
    all: list[Sample]
    """With those of the warm-up, whose tokens count where they come in the window."""


async def run(load: Load, send: Send) -> Run:
    """Send the requests of a load, and wait for all answers."""
    schedule = _Schedule(load)
    async with asyncio.TaskGroup() as tasks:
        if load.rate is None:
            for _ in range(load.clients):
                tasks.create_task(_client(schedule, send))
        else:
            await _arrivals(schedule, load.rate, send, tasks)
    samples = [sample for sample in schedule.samples if sample.number >= load.warmup]
    start = samples[0].planned if samples else 0.0
    last = max((sample.ended for sample in samples), default=0.0)
    return Run(samples, start, last if load.seconds is None else start + load.seconds, schedule.samples)


class _Schedule:
    """Makes the samples, until a load has enough."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._numbers = count()
        self._deadline: float | None = None
        self.samples: list[Sample] = []

    def next(self, planned: float) -> Sample | None:
        """Return the request that is due at a time; None after the last."""
        load = self._load
        if self._deadline is not None and planned >= self._deadline:
            return None
        if load.requests is not None and len(self.samples) >= load.warmup + load.requests:
            return None
        sample = Sample(next(self._numbers), planned)
        if sample.number == load.warmup and load.seconds is not None:
            self._deadline = planned + load.seconds
        self.samples.append(sample)
        return sample

    def gaps(self, rate: float) -> Iterator[float]:
        """Yield the seconds between arrivals."""
        chance = random.Random(self._load.seed)
        while True:
            yield chance.expovariate(rate)


async def _client(schedule: _Schedule, send: Send) -> None:
    loop = asyncio.get_running_loop()
    while (sample := schedule.next(loop.time())) is not None:
        await send(sample)


async def _arrivals(schedule: _Schedule, rate: float, send: Send, tasks: asyncio.TaskGroup) -> None:
    loop = asyncio.get_running_loop()
    planned = loop.time()
    for gap in schedule.gaps(rate):
        if (sample := schedule.next(planned)) is None:
            return
        await asyncio.sleep(planned - loop.time())
        tasks.create_task(_sent(send, sample))
        planned += gap


async def _sent(send: Send, sample: Sample) -> None:
    await send(sample)
