"""An engine: requests in, events out; whatever happens, each request ends once, and the engine lives on."""

import asyncio
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from intaglio.errors import UsageError
from intaglio.runtime import Generation, Scheduler, TextGenerator
from intaglio.runtime.generation.batch import Batch
from intaglio.serving.engine.engine import Engine
from intaglio.serving.errors import ApiError
from intaglio.tests.runtime import fakes
from intaglio.tests.runtime.fakes import text_generator
from intaglio.tests.serving.engine.engines import Counting, Gate, collect, opened, result_of, results, until

OPTIONS: dict[str, Any] = {"max_new_tokens": 6, "eos_token_id": []}


@pytest.fixture(scope="module")
def lm(tmp_path_factory: pytest.TempPathFactory) -> TextGenerator:
    return text_generator(fakes.language_model(tmp_path_factory.mktemp("lm") / "lm"), threads=1)


def error_of(found: Generation | ApiError) -> ApiError:
    assert isinstance(found, ApiError)
    return found


def test_the_events_of_a_call_are_those_of_its_requests(lm: TextGenerator) -> None:
    prompts = [[5, 6, 7], [9], [20, 30, 40]]

    async def run() -> None:
        observer = Counting()
        async with opened(lm, observer, slots=2) as engine:
            events = await collect(engine, *(engine.prepare(prompt, **OPTIONS) for prompt in prompts))
            assert (engine.running, engine.waiting, engine.alive) == (0, 0, True)
        expected = [lm.generate(prompt, **OPTIONS) for prompt in prompts]
        assert results(events) == expected
        for index, alone in enumerate(expected):
            mine = [event for other, event in events if other == index]
            assert "".join(event.text for event in mine) == alone.text
            assert tuple(token for event in mine for token in event.token_ids) == alone.token_ids
        assert observer.outcomes == ["length"] * 3
        assert observer.counts == sum(record.tokens for record in observer.records) == 18

    asyncio.run(run())


def test_of_many_calls_at_once_as_many_come_in_as_fit(lm: TextGenerator) -> None:
    async def run() -> None:
        observer, gate = Counting(), Gate()
        async with opened(lm, observer, slots=2, max_queue=3) as engine:
            requests = [engine.prepare([5], logits_processor=gate, **OPTIONS) for _ in range(12)]
            tasks = [asyncio.create_task(result_of(engine, request)) for request in requests]
            await gate.reached()
            with pytest.raises(ApiError, match="the queue of lm is full: 5 requests are open, and it takes 5"):
                await asyncio.to_thread(engine.prepare, [5], **OPTIONS)
            gate.open()
            found = await asyncio.gather(*tasks)
        refused = [one for one in found if isinstance(one, ApiError)]
        assert [one.code for one in refused] == ["queue_full"] * 7
        assert observer.refusals == ["queue_full"] * 8
        assert [one for one in found if isinstance(one, Generation)] == [lm.generate([5], **OPTIONS)] * 5
        assert observer.outcomes == ["length"] * 5

    asyncio.run(run())


def test_a_call_that_does_not_fit_begins_with_none_of_its_requests(lm: TextGenerator) -> None:
    async def run() -> None:
        gate = Gate()
        async with opened(lm, max_queue=2, per_key=2) as engine:
            first = asyncio.create_task(
                result_of(engine, engine.prepare([5], logits_processor=gate, **OPTIONS), client="a")
            )
            await gate.reached()
            pair = [engine.prepare([6], **OPTIONS) for _ in range(2)]
            with pytest.raises(ApiError, match="1 requests of this API key are open at lm, and it takes 2; wait"):
                await collect(engine, *pair, client="a")
            assert engine.waiting == 0
            second = asyncio.create_task(collect(engine, *pair, client="b"))
            await until(lambda: engine.waiting == 2)
            gate.open()
            assert isinstance(await first, Generation)
            assert len(results(await second)) == 2

    asyncio.run(run())


def test_a_call_that_is_left_frees_its_places(lm: TextGenerator) -> None:
    async def run() -> None:
        observer = Counting()
        async with opened(lm, observer, max_length=400, max_queue=1) as engine:
            request = engine.prepare([5], max_new_tokens=300, eos_token_id=[])
            waiting = engine.prepare([6], max_new_tokens=300, eos_token_id=[])
            async with aclosing(engine.run([request, waiting])) as events:
                await anext(events)
                assert (engine.running, engine.waiting) == (1, 1)
            assert observer.outcomes == ["cancelled"] * 2
            assert await result_of(engine, engine.prepare([7], **OPTIONS)) == lm.generate([7], **OPTIONS)
            await until(lambda: engine.running + engine.waiting == 0)
        assert observer.outcomes == ["cancelled", "cancelled", "length"]

    asyncio.run(run())


def test_a_request_whose_time_is_over_before_it_has_a_token_is_refused(lm: TextGenerator) -> None:
    async def run() -> None:
        observer, gate = Counting(), Gate()
        async with opened(lm, observer, request_timeout=600.0) as engine:
            first = asyncio.create_task(result_of(engine, engine.prepare([5], logits_processor=gate, **OPTIONS)))
            await gate.reached()
            request = engine.prepare([6], **OPTIONS)
            assert request.sequence._deadline is not None
            request.sequence._deadline = 0.0
            late = asyncio.create_task(result_of(engine, request))
            await until(lambda: engine.waiting == 1)
            gate.open()
            error = error_of(await late)
            assert error.message == (
                "lm has not begun to answer within the server's limit of 600 seconds; try again later, or ask for less"
            )
            assert (error.status, error.kind, error.code) == (504, "timeout_error", "request_timeout")
            assert isinstance(await first, Generation)
        assert observer.outcomes == ["length", "timeout"]

    asyncio.run(run())


def test_a_request_whose_time_is_over_later_ends_with_what_is_there(lm: TextGenerator) -> None:
    async def run() -> None:
        observer = Counting()
        async with opened(lm, observer, request_timeout=600.0) as engine:

            def late(tokens: Any, logits: Any) -> Any:
                if len(tokens) == 4:  # the prompt and three tokens
                    request.sequence._deadline = other.sequence._deadline = 0.0
                return logits

            request = engine.prepare([5], logits_processor=late, **OPTIONS)
            other = engine.prepare([6], **OPTIONS)
            events = engine.run([request, other])
            found = results([event async for event in events])
        assert [(one.finish_reason, len(one.token_ids)) for one in found] == [("time", 4), ("time", 0)]
        assert found[0].token_ids == lm.generate([5], **OPTIONS).token_ids[:4]
        assert observer.outcomes == ["time", "timeout"]

    asyncio.run(run())


def test_options_of_the_client_do_not_lengthen_its_time(lm: TextGenerator) -> None:
    async def run() -> None:
        async with opened(lm, request_timeout=50.0) as engine:
            deadlines = [engine.prepare([5], max_time=t, **OPTIONS).sequence._deadline for t in (None, 10.0, 1e6)]
        assert None not in deadlines
        now = asyncio.get_running_loop().time()
        assert [round(deadline - now, -1) for deadline in deadlines if deadline] == [50, 10, 50]

    asyncio.run(run())


def failing(*_: object) -> Any:
    raise RuntimeError("a secret of the server")


def test_a_failed_pass_ends_its_requests_and_the_engine_lives_on(
    lm: TextGenerator, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> None:
        observer = Counting()
        async with opened(lm, observer) as engine:
            for name in ("step", "read", "begin", "_fill_slots"):
                with monkeypatch.context() as patch:
                    patch.setattr(Batch, name, failing)
                    error = error_of(await result_of(engine, engine.prepare([5], **OPTIONS)))
                assert (error.status, error.kind) == (500, "server_error")
                assert error.message == "the server failed on this request; its log has the reason"
                assert engine.alive
                assert await result_of(engine, engine.prepare([5], **OPTIONS)) == lm.generate([5], **OPTIONS)
        assert observer.outcomes == ["error"] * 4 + ["length"] * 4

    asyncio.run(run())
    assert caplog.text.count("a secret of the server") >= 4


def test_what_a_request_asks_for_is_its_own_fault(lm: TextGenerator) -> None:
    def refuses(tokens: Any, logits: Any) -> Any:
        raise UsageError("every token is excluded")

    async def run() -> None:
        async with opened(lm, slots=2) as engine:
            other = asyncio.create_task(result_of(engine, engine.prepare([9], **OPTIONS)))
            error = error_of(await result_of(engine, engine.prepare([5], logits_processor=refuses, **OPTIONS)))
            assert (error.status, error.message) == (400, "every token is excluded")
            assert await other == lm.generate([9], **OPTIONS)

    asyncio.run(run())


def test_an_engine_whose_thread_has_ended_hangs_nobody(
    lm: TextGenerator, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> None:
        observer = Counting()
        async with opened(lm, observer) as engine:
            monkeypatch.setattr(Scheduler, "step", failing)
            found = await asyncio.gather(*(result_of(engine, engine.prepare([5], **OPTIONS)) for _ in range(3)))
            assert [error_of(one).status for one in found] == [500] * 3
            await until(lambda: not engine.alive)
            assert error_of(await result_of(engine, engine.prepare([5], **OPTIONS))).status == 500
        assert observer.outcomes == ["error"] * len(observer.records)

    asyncio.run(run())
    assert "the thread of lm has ended" in caplog.text


def test_a_closed_engine_ends_running_and_waiting_requests(lm: TextGenerator) -> None:
    async def run() -> None:
        observer, gate = Counting(), Gate()
        async with opened(lm, observer) as engine:
            requests = [engine.prepare([5], logits_processor=gate, **OPTIONS) for _ in range(3)]
            tasks = [asyncio.create_task(result_of(engine, request)) for request in requests]
            await gate.reached()
            await until(lambda: engine.waiting == 2)
            closing = asyncio.create_task(asyncio.to_thread(engine.close))
            await until(lambda: engine.waiting == 0)
            gate.open()
            await closing
            for task in tasks:
                error = error_of(await task)
                assert (error.status, error.code, error.retry_after) == (503, "shutting_down", 5)
                assert error.message.startswith("the server is shutting down; send the request to another one")
            with pytest.raises(ApiError, match="the server is shutting down"):
                engine.prepare([5])
            assert error_of(await result_of(engine, requests[0])).code == "shutting_down"
            assert engine.alive  # it was to end
        assert observer.outcomes == ["error"] * 3

    asyncio.run(run())


def test_a_model_that_is_closed_ends_its_engine(tmp_path: Path) -> None:
    lm = text_generator(fakes.language_model(tmp_path / "lm"), threads=1)

    async def run() -> Engine:
        async with opened(lm) as engine:
            lm.close()
            await until(lambda: not engine.alive)
            return engine

    asyncio.run(run())
