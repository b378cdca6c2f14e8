"""Several models: loaded once and one after the other, evicted when nobody uses them, closed when the server ends."""

import asyncio
import shutil
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from intaglio.errors import ArtifactError
from intaglio.runtime.load import Model, load
from intaglio.serving.engine.engine import Engine
from intaglio.serving.engine.models import Models, named_models
from intaglio.serving.errors import ApiError
from intaglio.serving.settings import Settings
from intaglio.tests.runtime import fakes
from intaglio.tests.serving.engine.engines import PATIENCE, Gate, collect, result_of, results, until

OPTIONS: dict[str, Any] = {"max_new_tokens": 6, "eos_token_id": []}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("models")
    made = {name: fakes.language_model(place / name, seed=seed) for seed, name in enumerate(("a", "b", "c"))}
    made["head"] = fakes.head(place / "head", "text-classification", np.eye(288, 2))
    return made


@asynccontextmanager
async def serving(folders: dict[str, Path], names: str, **settings: Any) -> AsyncGenerator[Models, None]:
    """Yield the models of some names, which are closed afterwards."""
    chosen = {name: folders[name] for name in names.split()}
    models = Models(named_models(chosen), Settings(**{"max_length": 100, "slots": 1, **settings}), {"threads": 1})
    try:
        yield models
    finally:
        await models.close()


class Loads:
    """Stands for ``load``: counts loads, and holds them while it is closed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.names: list[str] = []
        self.most = 0
        self._now = 0
        self._open = threading.Event()
        self._open.set()
        monkeypatch.setattr("intaglio.serving.engine.loaded.load", self)

    def __call__(self, folder: Path, **options: Any) -> Model:
        self._now += 1
        self.most = max(self.most, self._now)
        self.names.append(folder.name)
        assert self._open.wait(PATIENCE)
        self._now -= 1
        loaded: Model = load(folder, **options)
        return loaded

    def hold(self) -> None:
        self._open.clear()

    def go_on(self) -> None:
        self._open.set()


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> Loads:
    return Loads(monkeypatch)


class Held:
    """A request that holds a model until it is released."""

    def __init__(self, models: Models, name: str) -> None:
        self.engine: Engine | None = None
        self.error: ApiError | None = None
        self._release = asyncio.Event()
        self._task = asyncio.create_task(self._run(models, name))

    async def _run(self, models: Models, name: str) -> None:
        async with models.holding():
            try:
                self.engine = await models.engine(name)
            except ApiError as error:
                self.error = error
            await self._release.wait()

    async def release(self) -> None:
        self._release.set()
        await self._task

    async def loaded(self) -> Engine:
        await until(lambda: self.engine is not None)
        assert self.engine is not None
        return self.engine


async def refusal(models: Models, name: str | None, call: Callable[[str | None], Any] | None = None) -> ApiError:
    """Return the error that a request of a model gets."""
    async with models.holding():
        with pytest.raises(ApiError) as found:
            await (call or models.engine)(name)
    return found.value


def test_models_are_loaded_once_and_one_after_the_other(folders: dict[str, Path], loads: Loads) -> None:
    async def run() -> None:
        async with serving(folders, "a b") as models:
            loads.hold()
            assert (loads.names, dict(models.engines)) == ([], {})
            held = [Held(models, name) for name in ("a", "b", "a", "b", "a")]
            await until(lambda: loads.names == ["a"])  # the loop goes on meanwhile
            loads.go_on()
            engines = [await one.loaded() for one in held]
            assert loads.names == ["a", "b"]
            assert loads.most == 1
            assert engines[0] is engines[2] is engines[4] is models.engines["a"]
            for one in held:
                await one.release()
            again = Held(models, "a")
            assert await again.loaded() is engines[0]
            await again.release()
            assert await result_of(engines[0], engines[0].prepare([5, 6], **OPTIONS)) == engines[0].generator.generate(
                [5, 6], **OPTIONS
            )
        assert not engines[0]._stepper.running

    asyncio.run(run())


def test_a_load_that_nobody_waits_for_any_more_is_not_lost(folders: dict[str, Path], loads: Loads) -> None:
    async def run() -> None:
        async with serving(folders, "a") as models:
            loads.hold()

            async def leaves() -> None:
                async with models.holding():
                    await models.engine("a")

            task = asyncio.create_task(leaves())
            await until(lambda: loads.names == ["a"])
            task.cancel()
            await asyncio.wait({task})
            loads.go_on()
            held = Held(models, "a")
            await held.loaded()
            await held.release()
            assert loads.names == ["a"]

    asyncio.run(run())


def test_the_model_that_was_used_longest_ago_is_evicted(folders: dict[str, Path], loads: Loads) -> None:
    async def run() -> None:
        async with serving(folders, "a b c", max_loaded=2) as models:
            for name in ("a", "b", "a", "c", "a", "b"):
                held = Held(models, name)
                await held.loaded()
                await held.release()
                assert len(models.engines) <= 2
            assert loads.names == ["a", "b", "c", "b"]  # c took the place of b, and b that of c
            assert set(models.engines) == {"a", "b"}

    asyncio.run(run())


def test_a_model_with_requests_is_never_evicted(folders: dict[str, Path], loads: Loads) -> None:
    async def run() -> None:
        async with serving(folders, "a b", max_loaded=1) as models:
            first = Held(models, "a")
            engine = await first.loaded()
            second = Held(models, "b")
            await until(lambda: models._places["a"].leaving)
            later = Held(models, "a")  # comes while b waits for the place of a: it waits for b in turn
            async with models.holding():
                for _ in range(3):
                    await asyncio.sleep(0)
                assert results(await collect(engine, engine.prepare([5], **OPTIONS)))
            assert (second.engine, later.engine, loads.names) == (None, None, ["a"])
            await first.release()
            await second.loaded()
            assert set(models.engines) == {"b"}
            assert later.engine is None
            await second.release()
            await later.loaded()
            assert loads.names == ["a", "b", "a"]
            await later.release()

    asyncio.run(run())


def test_requests_that_wait_for_a_load_are_bounded(folders: dict[str, Path], loads: Loads) -> None:
    async def run() -> None:
        async with serving(folders, "a", max_queue=2) as models:
            loads.hold()
            held = [Held(models, "a") for _ in range(3)]
            await until(lambda: loads.names == ["a"])
            error = await refusal(models, "a")
            assert (error.status, error.code) == (429, "queue_full")
            assert error.message == "the queue of a is full: 3 requests are open, and it takes 3; try again later"
            loads.go_on()
            for one in held:
                await one.loaded()
                await one.release()

    asyncio.run(run())


def test_an_artifact_that_cannot_be_loaded_is_an_error_and_is_tried_again(
    folders: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(folders["a"], tmp_path / "a")
    graph = tmp_path / "a" / "onnx" / "model.onnx"
    whole = graph.read_bytes()

    async def run() -> None:
        async with serving({"a": tmp_path / "a"}, "a") as models:
            graph.write_bytes(b"broken")
            found = await asyncio.gather(*(refusal(models, "a") for _ in range(3)))
            for error in found:
                assert (error.status, error.kind, error.code) == (503, "server_error", "model_not_loaded")
                assert error.message == "the model 'a' cannot be loaded; the server's log has the reason"
                assert error.retry_after is not None
            with pytest.raises(ArtifactError, match=str(tmp_path)):
                await models.preload()
            graph.write_bytes(whole)
            await models.preload()
            assert set(models.engines) == {"a"}

    asyncio.run(run())
    assert caplog.text.count("cannot load a: ") == 2  # three requests share one try
    assert str(tmp_path) in caplog.text


def test_names_and_tasks_that_do_not_fit(folders: dict[str, Path]) -> None:
    async def run() -> None:
        async with serving(folders, "a head") as models:
            error = await refusal(models, "gpt-4")
            assert (error.status, error.code, error.param) == (404, "model_not_found", "model")
            assert error.message == "there is no model 'gpt-4'; the models are: a, head"
            error = await refusal(models, None)
            assert (error.status, error.message) == (400, "there are several models; give one of a, head")
            error = await refusal(models, "head")
            assert error.message == "the model 'head' is for text-classification, not for text"
            error = await refusal(models, "a", lambda name: models.run_task(name, len))  # type: ignore[arg-type]
            assert error.message == "the model 'a' is for text-generation, not for this path"
            with pytest.raises(LookupError):
                await models.engine("a")

    asyncio.run(run())


def test_calls_of_a_head_run_one_after_the_other_on_a_thread_of_their_own(folders: dict[str, Path]) -> None:
    async def run() -> None:
        async with serving(folders, "head", max_queue=3, per_key=2) as models:
            gate, names = Gate(), []

            def call(model: Model, value: int) -> int:
                names.append(threading.current_thread().name)
                gate(None, None)
                if value == 2:
                    raise ValueError("two")
                return value

            async def ask(value: int, client: str = "") -> int:
                async with models.holding():
                    return await models.run_task(None, lambda model: call(model, value), client)

            tasks = [asyncio.create_task(ask(value, f"key{value % 2}")) for value in range(3)]
            await gate.reached()
            with pytest.raises(ApiError, match="2 requests of this API key are open at head, and it takes 2; wait"):
                await ask(9, "key0")
            tasks.append(asyncio.create_task(ask(3)))
            await asyncio.sleep(0)
            with pytest.raises(ApiError, match="the queue of head is full: 4 requests are open, and it takes 4"):
                await ask(9)
            tasks[1].cancel()  # it waits, so it never begins
            await asyncio.wait({tasks[1]})
            gate.open()
            assert await tasks[0] == 0
            with pytest.raises(ValueError, match="two"):
                await tasks[2]
            assert await tasks[3] == 3
            assert names == ["worker head_0"] * 3
            assert await ask(5) == 5

    asyncio.run(run())


def test_a_call_of_a_head_has_a_time(folders: dict[str, Path]) -> None:
    async def run() -> None:
        async with serving(folders, "head", request_timeout=0.01) as models:
            gate = Gate()
            error = await refusal(models, "head", lambda name: models.run_task(name, lambda _: gate(None, None)))
            assert (error.status, error.code) == (504, "request_timeout")
            gate.open()

    asyncio.run(run())


def test_a_drain_lets_requests_end_and_takes_no_others(folders: dict[str, Path]) -> None:
    async def run() -> None:
        async with serving(folders, "a b") as models:
            gate = Gate()
            held = Held(models, "a")
            engine = await held.loaded()
            running = asyncio.create_task(
                result_of(engine, engine.prepare([5], logits_processor=gate, **OPTIONS), client="x")
            )
            await gate.reached()
            drained = asyncio.create_task(models.drain(PATIENCE))
            await asyncio.sleep(0)
            for name in ("a", "b"):
                error = await refusal(models, name)
                assert (error.status, error.code, error.retry_after) == (503, "shutting_down", 5)
            assert not drained.done()
            gate.open()
            found = await running
            assert not isinstance(found, ApiError)
            await held.release()
            await drained
            assert dict(models.engines) == {}
            assert models.healthy

    asyncio.run(run())


def test_a_drain_that_takes_too_long_ends_requests_with_an_error(
    folders: dict[str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> None:
        async with serving(folders, "a") as models:
            gate = Gate()
            held = Held(models, "a")
            engine = await held.loaded()
            running = asyncio.create_task(result_of(engine, engine.prepare([5], logits_processor=gate, **OPTIONS)))
            await gate.reached()
            drained = asyncio.create_task(models.drain(0.01))
            await until(lambda: engine._closing)
            gate.open()
            await drained
            error = await running
            assert isinstance(error, ApiError)
            assert error.code == "shutting_down"
            await held.release()

    asyncio.run(run())
    assert "1 requests have not ended within 0.01 seconds; they end with an error" in caplog.text


def test_a_server_that_ends_while_a_model_is_loaded(folders: dict[str, Path], loads: Loads) -> None:
    async def run() -> None:
        async with serving(folders, "a b c", max_loaded=1) as models:
            loads.hold()
            held = [Held(models, name) for name in ("a", "b", "c")]
            await until(lambda: loads.names == ["a"])
            closing = asyncio.create_task(models.close())
            await asyncio.sleep(0)
            loads.go_on()
            await closing
            await until(lambda: all(one.engine or one.error for one in held))
            for one in held[1:]:  # a is closed as soon as it is there
                assert one.error is not None
                assert one.error.code == "shutting_down"
            assert loads.names == ["a"]
            for one in held:
                await one.release()

    asyncio.run(run())
