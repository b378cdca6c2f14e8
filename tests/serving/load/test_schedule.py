"""When requests are sent and what is counted of them, in virtual time against a server with known delays."""

import asyncio
import random
from collections.abc import Sequence

import pytest
from intaglio.serving.load.sample import Sample
from intaglio.serving.load.schedule import Load, Run, Send, run
from intaglio.serving.load.statistics import figures, spread
from intaglio.tests.serving.load.virtual import run_virtual


def scripted(first: float, gap: float, tokens: int, slots: int = 1000) -> Send:
    """Return a server: so many seconds to the first token, then one every ``gap``; ``slots`` requests at once."""
    free = asyncio.Semaphore(slots)

    async def send(sample: Sample) -> None:
        loop = asyncio.get_running_loop()
        sample.sent = loop.time()
        async with free:
            for number in range(tokens):
                await asyncio.sleep(gap if number else first)
                sample.chunks.append(loop.time())
        sample.ended, sample.output_tokens, sample.prompt_tokens = loop.time(), tokens, 10

    return send


def measured(load: Load, first: float = 0.5, gap: float = 0.1, tokens: int = 6, slots: int = 1000) -> Run:
    async def work() -> Run:
        return await run(load, scripted(first, gap, tokens, slots))

    return run_virtual(work())


def test_the_times_of_a_closed_loop() -> None:
    found = figures(measured(Load(clients=2, requests=8)))
    assert found["requests"] == found["completed"] == 8
    assert found["seconds"] == pytest.approx(4.0)
    assert found["output_tokens_per_second"] == pytest.approx(8 * 6 / 4)
    assert found["total_tokens_per_second"] == pytest.approx(8 * 16 / 4)
    assert found["requests_per_second"] == pytest.approx(2.0)
    for name, seconds in (("first_token", 0.5), ("token_gap", 0.1), ("per_token", 0.1), ("end_to_end", 1.0)):
        assert found[f"{name}_seconds"] == pytest.approx(dict.fromkeys(("mean", "p50", "p90", "p99", "max"), seconds))


def test_a_client_of_a_closed_loop_waits_for_its_answer() -> None:
    samples = measured(Load(clients=3, requests=7)).samples
    assert sorted(sample.planned for sample in samples) == pytest.approx([0, 0, 0, 1, 1, 1, 2])


def test_the_arrivals_of_an_open_loop_do_not_wait() -> None:
    load = Load(rate=2.0, requests=200, seed=5)
    samples = measured(load, first=30.0).samples
    chance = random.Random(5)
    due = 0.0
    for sample in samples:
        assert sample.planned == pytest.approx(due)
        assert sample.sent == pytest.approx(due)
        due += chance.expovariate(2.0)
    assert due / len(samples) == pytest.approx(0.5, rel=0.2)


def test_a_wait_for_a_slot_counts_from_the_planned_time() -> None:
    """A server that takes 1 s for each request and gets two a second falls behind, and each time shows by how much."""
    samples = measured(Load(rate=2.0, requests=20, seed=1), first=1.0, tokens=1, slots=1).samples
    free = 0.0
    for sample in samples:
        free = max(free, sample.planned) + 1.0
        assert sample.first_token == pytest.approx(free - sample.planned)
    assert samples[-1].end_to_end > 5


def test_a_client_that_falls_behind_is_counted_and_shown() -> None:
    """A blocked event loop delays the second request; its time begins when it was due."""

    async def work() -> Run:
        async def send(sample: Sample) -> None:
            loop = asyncio.get_running_loop()
            sample.sent = loop.time()
            if sample.number == 0:
                loop._clock.now += 100.0  # type: ignore[attr-defined]
            sample.chunks.append(loop.time())
            sample.ended = loop.time()

        return await run(Load(rate=1.0, requests=5), send)

    found = run_virtual(work())
    assert found.samples[1].sent == pytest.approx(100.0)
    assert found.samples[1].first_token == pytest.approx(100.0 - found.samples[1].planned)
    assert figures(found)["late_seconds"]["max"] > 90


def test_the_warm_up_is_not_counted_and_has_no_pause_after_it() -> None:
    found = measured(Load(clients=2, requests=4, warmup=2))
    assert [sample.number for sample in found.samples] == [2, 3, 4, 5]
    assert [found.start, found.end] == pytest.approx([1.0, 3.0])


def test_a_run_of_seconds_counts_what_comes_in_them() -> None:
    """Two clients, each with an answer of 6 tokens a second; the window of 2.65 s ends inside the third answer."""
    found = figures(measured(Load(clients=2, seconds=2.65)))
    assert found["requests"] == 6
    assert found["seconds"] == pytest.approx(2.65)
    assert found["output_tokens_per_second"] == pytest.approx(2 * (6 + 6 + 2) / 2.65)
    assert found["requests_per_second"] == pytest.approx(4 / 2.65)


def test_an_open_loop_of_seconds_sends_until_they_are_over() -> None:
    samples = measured(Load(rate=10.0, seconds=5.0, warmup=3)).samples
    assert samples[-1].planned - samples[0].planned < 5.0
    assert 30 < len(samples) < 75


def test_failures_are_counted_by_their_kind_and_have_no_times() -> None:
    def failed(number: int, error: str | None, detail: str = "") -> Sample:
        return Sample(number, float(number), float(number), [number + 0.5], number + 1.0, 4, 0, 1, None, error, detail)

    samples = [failed(0, None), failed(1, "429", "try later"), failed(2, "429", "full"), failed(3, "timeout")]
    found = figures(Run(samples, 0.0, 4.0, samples))
    assert found["errors"] == {"429": 2, "timeout": 1}
    assert found["error_details"] == {"429": "try later"}
    assert (found["requests"], found["completed"]) == (4, 1)
    assert found["end_to_end_seconds"]["max"] == 1.0


def test_a_run_without_an_answer_has_no_figures() -> None:
    found = figures(Run([], 0.0, 0.0, []))
    assert found["first_token_seconds"] is None
    assert found["output_tokens_per_second"] is None


@pytest.mark.parametrize(
    ("values", "median", "tenth", "hundredth"),
    [([1.0, 2.0, 3.0], 2.0, 2.8, 2.98), (range(101), 50.0, 90.0, 99.0), ([7.0], 7.0, 7.0, 7.0)],
)
def test_percentiles_lie_between_the_values(
    values: Sequence[float], median: float, tenth: float, hundredth: float
) -> None:
    found = spread(list(values))
    assert found is not None
    assert (found["p50"], found["p90"], found["p99"]) == pytest.approx((median, tenth, hundredth))
