"""The thread of a head: calls take turns step by step, and end early where nobody waits for them."""

import asyncio
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from intaglio.serving.engine.worker import Worker
from intaglio.serving.errors import ApiError
from intaglio.serving.settings import Settings
from intaglio.serving.steps import Steps

PATIENCE = 60


def worker(**settings: Any) -> Worker:
    return Worker("head", SimpleNamespace(), Settings(**settings))  # type: ignore[arg-type]


def counting(count: int, taken: Callable[[int], None], result: Any = None) -> Steps[Any]:
    """Take so many steps, and return or raise the result."""
    for number in range(count):
        yield
        taken(number)
    if isinstance(result, Exception):
        raise result
    return result


async def closed(made: Worker) -> None:
    await asyncio.to_thread(made.close)
    assert made.open == 0


def test_a_call_returns_what_its_generator_returns_or_raises() -> None:
    async def run() -> None:
        made, taken = worker(), list[int]()
        assert await made.run_steps(counting(5, taken.append, "value"), "") == "value"
        assert taken == list(range(5))
        with pytest.raises(ValueError, match="wrong"):
            await made.run_steps(counting(2, taken.append, ValueError("wrong")), "")
        assert await made.run(lambda: 7, "") == 7
        await closed(made)

    asyncio.run(run())


def test_calls_take_turns() -> None:
    async def run() -> None:
        made, order, begin = worker(), list[str](), threading.Event()

        def taken(name: str) -> Callable[[int], None]:
            def note(_: int) -> None:
                assert begin.wait(PATIENCE)
                order.append(name)

            return note

        calls = [asyncio.create_task(made.run_steps(counting(4, taken(name)), "")) for name in "ab"]
        while made.open < 2:
            await asyncio.sleep(0)
        begin.set()
        await asyncio.gather(*calls)
        assert "".join(order) in ("abababab", "aabababb")  # the first may have begun before the second came
        await closed(made)

    asyncio.run(run())


def test_steps_do_not_wait_for_the_loop() -> None:
    async def run() -> None:
        made, ended = worker(), threading.Event()
        call = asyncio.create_task(made.run_steps(counting(100, lambda number: ended.set() if number == 99 else None)))
        await asyncio.sleep(0)
        assert ended.wait(PATIENCE)  # the loop stands still meanwhile
        await call
        await closed(made)

    asyncio.run(run())


def test_a_call_that_is_cancelled_takes_no_further_step_and_counts_until_the_one_that_runs_ends() -> None:
    async def run() -> None:
        made, taken, begun, go_on = worker(), list[int](), threading.Event(), threading.Event()

        def note(number: int) -> None:
            taken.append(number)
            begun.set()
            assert go_on.wait(PATIENCE)

        call = asyncio.create_task(made.run_steps(counting(9, note), ""))
        await asyncio.to_thread(begun.wait, PATIENCE)
        call.cancel()
        await asyncio.wait({call})
        assert made.open == 1
        go_on.set()
        while made.open:
            await asyncio.sleep(0.001)
        assert taken == [0]
        await closed(made)

    asyncio.run(run())


def test_the_time_of_a_call_is_that_of_all_its_steps() -> None:
    async def run() -> None:
        made = worker(request_timeout=0.1)
        with pytest.raises(ApiError) as raised:
            await made.run_steps(counting(10**6, lambda _: time.sleep(0.01)), "")
        assert (raised.value.status, raised.value.code) == (504, "request_timeout")
        while made.open:
            await asyncio.sleep(0.001)
        await closed(made)

    asyncio.run(run())


def test_a_worker_that_closes_ends_its_calls() -> None:
    async def run() -> None:
        made, begun, go_on = worker(), threading.Event(), threading.Event()

        def note(_: int) -> None:
            begun.set()
            assert go_on.wait(PATIENCE)

        calls = [asyncio.create_task(made.run_steps(counting(3, note), "")) for _ in range(2)]
        await asyncio.to_thread(begun.wait, PATIENCE)
        closing = asyncio.create_task(asyncio.to_thread(made.close))
        await asyncio.wait({calls[1]}, timeout=PATIENCE)
        go_on.set()
        for call in calls:
            with pytest.raises(ApiError) as raised:
                await call
            assert (raised.value.status, raised.value.code) == (503, "shutting_down")
        await closing
        with pytest.raises(ApiError, match="server"):
            await made.run(lambda: 1, "")
        assert made.open == 0

    asyncio.run(run())
