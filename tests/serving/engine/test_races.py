"""Random operations on several models: calls that come, leave, run out of time or fail, evictions, drains, closes.

Whatever happens, every request ends once, with its answer or an error of a known kind, and nothing stays open.
"""

import asyncio
from collections import Counter
from contextlib import aclosing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from intaglio.runtime import Generation
from intaglio.runtime.generation.batch import Batch
from intaglio.runtime.load import Model
from intaglio.serving.engine.engine import Engine
from intaglio.serving.engine.models import Models, named_models
from intaglio.serving.errors import ApiError
from intaglio.serving.settings import Settings
from intaglio.tests.runtime import fakes
from intaglio.tests.runtime.fakes import text_generator
from intaglio.tests.serving.engine.engines import PATIENCE, Counting, until

NAMES = ("a", "b")
PROMPTS = [[5, 6, 7], [9] * 70, [20, 30, 40, 50], [9] * 150]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("models")
    made = {name: fakes.language_model(place / name, seed=seed) for seed, name in enumerate(NAMES)}
    made["head"] = fakes.head(place / "head", "text-classification", np.eye(288, 2))
    return made


@pytest.fixture(scope="module")
def expected(folders: dict[str, Path]) -> dict[str, list[Generation]]:
    """What each model makes of each prompt."""
    found = {}
    for name in NAMES:
        with text_generator(folders[name], threads=1) as lm:
            found[name] = [lm.generate(prompt, max_new_tokens=20, eos_token_id=[]) for prompt in PROMPTS]
    return found


class Client:
    """Sends one random call, and counts how it ended."""

    def __init__(self, models: Models, expected: dict[str, list[Generation]], ends: Counter[str]) -> None:
        self._models = models
        self._expected = expected
        self._ends = ends

    async def call(self, seed: int) -> None:
        random = np.random.default_rng(seed)
        try:
            async with self._models.holding(), asyncio.timeout(PATIENCE):
                if random.random() < 0.1:
                    end = await self._head(random)
                else:
                    end = await self._text(random)
        except ApiError as error:
            end = error.code or str(error.status)
        except asyncio.CancelledError:
            end = "cancelled"
        self._ends[end] += 1

    async def _head(self, random: np.random.Generator) -> str:
        value = int(random.integers(1000))

        def call(model: Model) -> int:
            return value

        assert await self._models.run_task("head", call) == value
        return "head"

    async def _text(self, random: np.random.Generator) -> str:
        name = str(random.choice(NAMES))
        engine: Engine = await self._models.engine(name)
        chosen = [int(random.integers(len(PROMPTS))) for _ in range(random.choice([1, 1, 1, 2, 3]))]
        options: dict[str, Any] = {"max_new_tokens": 20, "eos_token_id": []}
        if random.random() < 0.1:
            options["logits_processor"] = _broken
        requests = [await asyncio.to_thread(engine.prepare, PROMPTS[one], **options) for one in chosen]
        for request in requests:
            if random.random() < 0.1:
                request.sequence._deadline = 0.0
        leaves_after = int(random.integers(1, 30)) if random.random() < 0.3 else 1000
        results: dict[int, Generation] = {}
        async with aclosing(engine.run(requests, str(random.choice(["x", "y", ""])))) as events:
            async for index, event in events:
                leaves_after -= 1
                if not leaves_after:
                    return "left"
                if event.result is not None:
                    assert index not in results
                    results[index] = event.result
        assert len(results) == len(chosen)
        for index, one in enumerate(chosen):
            if results[index].finish_reason != "time":
                assert results[index] == self._expected[name][one]
        return "answered"


def _broken(tokens: Any, logits: Any) -> Any:
    if len(tokens) % 7 == 0:
        raise RuntimeError("broken")
    return logits


KNOWN = {"answered", "left", "head", "cancelled", "queue_full", "rate_limit_exceeded", "request_timeout", "500"}


async def storm(models: Models, expected: dict[str, list[Generation]], calls: int, seed: int) -> Counter[str]:
    """Start calls at random times, and cancel some; return how they ended."""
    random = np.random.default_rng(seed)
    ends: Counter[str] = Counter()
    client = Client(models, expected, ends)
    tasks: list[asyncio.Task[None]] = []
    for number in range(calls):
        tasks.append(asyncio.create_task(client.call(seed * 100_000 + number)))
        for _ in range(int(random.integers(0, 4))):
            await asyncio.sleep(0)
        if random.random() < 0.1:
            tasks[int(random.integers(len(tasks)))].cancel()
        if random.random() < 0.5:
            await asyncio.wait(tasks[-4:], return_when=asyncio.FIRST_COMPLETED)
    await asyncio.gather(*tasks, return_exceptions=True)
    for task in tasks:  # one that was cancelled before it began has counted nothing
        if task.cancelled():
            ends["cancelled"] += 1
        elif (error := task.exception()) is not None:
            raise error
    assert sum(ends.values()) == calls
    return ends


async def settled(models: Models) -> None:
    """Wait until nothing is open any more."""
    await until(lambda: all(engine.running + engine.waiting == 0 for engine in models.engines.values()))
    assert all(not place.users and not place.later and not place.leaving for place in models._places.values())
    assert all(not engine._open and not engine._admission.open for engine in models.engines.values())
    assert all(not engine._admission._clients for engine in models.engines.values())


SEEDS = [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 12))]


@pytest.mark.parametrize("max_loaded", [None, 1])
@pytest.mark.parametrize("seed", SEEDS)
def test_every_call_ends_once(
    folders: dict[str, Path],
    expected: dict[str, list[Generation]],
    seed: int,
    max_loaded: int | None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    step, steps = Batch.step, iter(range(10**9))

    def sometimes(batch: Batch, *rounds: Any) -> Any:
        if next(steps) % 97 == 96:
            raise RuntimeError("a pass has failed")
        return step(batch, *rounds)

    monkeypatch.setattr(Batch, "step", sometimes)

    async def run() -> None:
        observer = Counting()
        settings = Settings(slots=3, max_queue=6, per_key=4, max_length=200, kept_prompts=2, max_loaded=max_loaded)
        models = Models(named_models(folders), settings, {"threads": 1}, observer)
        ends = await storm(models, expected, 300, seed)
        await settled(models)
        assert set(ends) <= KNOWN
        assert ends["answered"]
        records = observer.records
        assert len({id(record) for record in records}) == len(records)
        assert all(record.outcome for record in records)
        assert models.healthy
        await models.close()

    caplog.set_level("CRITICAL")
    asyncio.run(run())


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 20))])
def test_a_server_may_end_at_any_time(
    folders: dict[str, Path], expected: dict[str, list[Generation]], seed: int, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> None:
        random = np.random.default_rng(seed)
        settings = Settings(slots=3, max_queue=6, max_length=200, kept_prompts=2, max_loaded=1)
        models = Models(named_models(folders), settings, {"threads": 1})
        calls = asyncio.create_task(storm(models, expected, 100, seed))
        turns = int(random.integers(1, 400))
        for _ in range(turns):
            await asyncio.sleep(0)
        async with asyncio.timeout(PATIENCE):
            await (models.drain(float(random.choice([0.0, 0.01, 1.0]))) if random.random() < 0.7 else models.close())
        ends = await calls
        assert set(ends) <= KNOWN | {"shutting_down"}
        assert dict(models.engines) == {}

    caplog.set_level("CRITICAL")
    asyncio.run(run())
