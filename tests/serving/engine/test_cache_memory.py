"""The memory of the KV cache is reckoned when a model is loaded, and before each request comes in."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from intaglio.errors import PromptError, UsageError
from intaglio.runtime import Scheduler, TextGenerator
from intaglio.runtime.engine.sizes import RESERVE
from intaglio.runtime.generation.batch import Batch
from intaglio.runtime.kernels import instructions
from intaglio.runtime.load import LoadOptions
from intaglio.serving.engine.cache_memory import CacheMemory
from intaglio.serving.engine.loaded import open_model
from intaglio.serving.engine.models import named_models
from intaglio.serving.errors import ApiError
from intaglio.serving.settings import Settings
from intaglio.tests.runtime import fakes
from intaglio.tests.runtime.fakes import text_generator
from intaglio.tests.serving.engine.engines import opened, result_of

OPTIONS: dict[str, Any] = {"max_new_tokens": 9, "eos_token_id": []}


@pytest.fixture(scope="module")
def lm(tmp_path_factory: pytest.TempPathFactory) -> TextGenerator:
    return text_generator(fakes.language_model(tmp_path_factory.mktemp("lm") / "lm"), threads=1)


class Free:
    """Stands for the machine's free memory."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.bytes: int | None = 1 << 40
        monkeypatch.setattr("intaglio.serving.engine.cache_memory.available_memory", lambda: self.bytes)


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> Free:
    return Free(monkeypatch)


def test_slots_beyond_memory_are_refused_with_what_fits(lm: TextGenerator, free: Free) -> None:
    settings = Settings(slots=6, kept_prompts=2, max_length=500)
    each = lm.session.cache_bytes(1)
    assert lm.session.cache_bytes(500) == 500 * each
    free.bytes = 8 * 500 * each + RESERVE
    CacheMemory("lm", lm.session).check_slots(settings)
    free.bytes -= 1
    with pytest.raises(UsageError) as found:
        CacheMemory("lm", lm.session).check_slots(settings)
    assert str(found.value) == (
        "the KV cache of lm needs 0.0 GB for 6 slots and 2 kept prompts of 500 tokens, and 0.1 GB of memory are free; "
        "give --max-length 499, or fewer --slots or --kept-prompts"
    )
    free.bytes = RESERVE
    with pytest.raises(UsageError, match="are free; fewer --slots or --kept-prompts"):
        CacheMemory("lm", lm.session).check_slots(settings)
    free.bytes = None  # the system does not say
    CacheMemory("lm", lm.session).check_slots(settings)


def test_a_request_that_does_not_fit_now_is_refused_and_fits_later(lm: TextGenerator, free: Free) -> None:
    async def run() -> None:
        each = lm.session.cache_bytes(1)
        async with opened(lm, slots=2, kept_prompts=0) as engine:
            free.bytes = RESERVE + 17 * each  # 9 of the prompt and 8 of the answer: the last token is not read
            assert not isinstance(await result_of(engine, engine.prepare([5] * 9, **OPTIONS)), ApiError)
            free.bytes = RESERVE  # the memory of that slot is used again
            assert not isinstance(await result_of(engine, engine.prepare([6] * 9, **OPTIONS)), ApiError)
            error = await result_of(engine, engine.prepare([6] * 10, **OPTIONS))
            assert isinstance(error, ApiError)
            assert (error.status, error.code, error.kind) == (503, "insufficient_memory", "server_error")
            assert error.message == (
                "the server has not enough memory for this request to lm now; try again later, or send a shorter "
                "prompt and ask for fewer tokens"
            )
            assert error.retry_after is not None
            free.bytes += each
            assert not isinstance(await result_of(engine, engine.prepare([6] * 10, **OPTIONS)), ApiError)

    asyncio.run(run())


def test_memory_that_is_short_in_a_pass_is_not_the_clients_fault(
    lm: TextGenerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    def short(*_: object) -> Any:
        raise PromptError("not enough memory to run the model (bad allocation); give less text")

    async def run() -> None:
        async with opened(lm) as engine:
            monkeypatch.setattr(Batch, "read", short)
            error = await result_of(engine, engine.prepare([5], **OPTIONS))
            assert isinstance(error, ApiError)
            assert (error.status, error.code) == (503, "insufficient_memory")

    asyncio.run(run())


@pytest.mark.parametrize("options", [{}, {"layer_windows": (6, None)}, {"target": "standard"}])
def test_the_memory_that_requests_may_still_take(tmp_path: Path, options: dict[str, Any]) -> None:
    lm = text_generator(fakes.language_model(tmp_path / "lm", **options), threads=1)
    needs = lm.session.cache_bytes

    def finish(scheduler: Scheduler) -> None:
        while scheduler.busy:
            scheduler.step()

    with lm.scheduler(slots=2, max_length=300, kept_prompts=1) as scheduler:
        assert scheduler.memory_needed() == 0
        short, long = (scheduler.prepare([5] * size, max_new_tokens=11, eos_token_id=[]) for size in (20, 150))
        assert scheduler.memory_needed([long]) == needs(160) + needs(150)
        assert scheduler.memory_needed([short, long]) == needs(160) + needs(30) + needs(150)
        scheduler.add(long)
        assert scheduler.memory_needed([short]) == needs(160) + needs(30) + needs(150)
        finish(scheduler)
        again = scheduler.prepare([6] * 150, max_new_tokens=11, eos_token_id=[])
        if lm.manifest.target == "ort":  # the memory is kept; long's prompt as well, unless its window has moved
            assert scheduler.memory_needed([again]) == needs(150) - needs(scheduler.kept_prompts * 150)
    assert scheduler.memory_needed([again]) == 0


@pytest.mark.skipif(instructions() is None, reason="intaglio's attention does not run on this processor")
@pytest.mark.parametrize(("slots", "chosen"), [(7, "float32"), (8, "int8")])
def test_with_auto_the_slots_decide_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, slots: int, chosen: str
) -> None:
    folder = fakes.language_model(tmp_path / "lm")
    served = named_models({"lm": folder})["lm"]
    row = 2 * fakes.LAYERS * fakes.KV_HEADS * fakes.HEAD_DIM * 4  # keys and values of a token
    monkeypatch.setattr("intaglio.runtime.engine.cache_choice.available_memory", lambda: RESERVE + 9 * 100 * row)
    settings, options = Settings(slots=slots, kept_prompts=2, max_length=100), LoadOptions(kv_cache="auto", threads=1)

    async def chosen_by_server() -> str:
        loaded = open_model(served, options, settings, None, asyncio.get_running_loop())
        found = loaded.model.session.cache_dtype
        await asyncio.to_thread(loaded.close)
        return found

    with caplog.at_level("INFO", "intaglio"):
        assert asyncio.run(chosen_by_server()) == chosen
    assert f"lm: KV cache {chosen}, for {slots + 2} texts of 100 tokens " in caplog.text
