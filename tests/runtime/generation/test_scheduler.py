"""Continuous batching: requests that join and leave in any order get the same tokens as alone."""

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from intaglio import load
from intaglio.errors import PromptError, UsageError
from intaglio.runtime import Event, Generation, Scheduler, TextGenerator
from intaglio.runtime.generation.batch import Advance, Batch, RoundsOf
from intaglio.runtime.sequence.sequence import ActiveSequence
from intaglio.tests.runtime import fakes
from intaglio.tests.runtime.fakes import text_generator

KINDS: dict[str, dict[str, Any]] = {
    "shared": {},
    "windowed": {"layer_windows": (6, None)},
    "standard": {"target": "standard"},
}


@pytest.fixture(scope="module", params=list(KINDS))
def lm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TextGenerator:
    return text_generator(fakes.language_model(tmp_path_factory.mktemp("lm") / "lm", **KINDS[request.param]))


def results_of(events: list[Event]) -> dict[int, Generation]:
    return {event.request: event.result for event in events if event.result is not None}


def finish(scheduler: Scheduler) -> dict[int, Generation]:
    """Step until all requests are finished; return the results."""
    results: dict[int, Generation] = {}
    while scheduler.busy:
        results |= results_of(scheduler.step())
    return results


@pytest.mark.parametrize("seed", range(3))
def test_requests_that_join_and_leave_at_random_get_the_same_tokens_as_alone(lm: TextGenerator, seed: int) -> None:
    random = np.random.default_rng(seed)
    prompts = [random.integers(3, 288, random.integers(1, 90)).tolist() for _ in range(14)]
    options: list[dict[str, Any]] = [
        {"max_new_tokens": int(n), "temperature": float(t), "seed": 5, "eos_token_id": [7, 8, 9]}
        for n, t in zip(random.integers(1, 40, 14), random.choice([0.0, 1.5], 14), strict=True)
    ]
    expected = [lm.generate(p, speculate=False, **o) for p, o in zip(prompts, options, strict=True)]
    events: list[Event] = []
    with lm.scheduler(slots=3, max_length=200) as scheduler:
        numbers = []
        for prompt, how in zip(prompts, options, strict=True):
            numbers.append(scheduler.submit(prompt, **how))
            for _ in range(random.integers(0, 12)):
                events += scheduler.step()
        while scheduler.busy:
            events += scheduler.step()
    assert [results_of(events)[number] for number in numbers] == expected
    for number, alone in zip(numbers, expected, strict=True):
        received = [event for event in events if event.request == number]
        assert "".join(event.text for event in received) == alone.text
        assert [event.result is not None for event in received] == [False] * (len(received) - 1) + [True]


def test_a_list_of_prompts_fills_the_slots_that_become_free(lm: TextGenerator, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = [[5, 6, 7], [9] * 70, [20, 30, 40], [11], [200, 3], [60] * 12, [8, 8]]
    single = [lm.generate(prompt, max_new_tokens=n, seed=1) for n, prompt in enumerate(prompts, 2)]
    together = []
    step = Batch.step

    def recorded(batch: Batch, rounds_of: RoundsOf) -> list[Advance]:
        together.append(batch.running)
        return step(batch, rounds_of)

    monkeypatch.setattr(Batch, "step", recorded)
    free = lm.generate(prompts, max_new_tokens=8, batch_size=3)
    assert [r.token_ids for r in free][6] == single[6].token_ids
    assert max(together) == 3
    assert len(together) < 30  # 7 tokens each behind the first: 49 in steps of up to three
    ends = [r.token_ids[1] for r in free[:3]]
    assert lm.generate(prompts, max_new_tokens=8, batch_size=3, eos_token_id=ends) == [
        lm.generate(prompt, max_new_tokens=8, eos_token_id=ends) for prompt in prompts
    ]


def test_a_cancelled_request_has_no_further_events(lm: TextGenerator) -> None:
    with lm.scheduler(slots=2, max_length=100) as scheduler:
        numbers = [scheduler.submit([5 + n], max_new_tokens=20, eos_token_id=[]) for n in range(4)]
        scheduler.step()
        scheduler.cancel(numbers[0])  # running
        scheduler.cancel(numbers[3])  # waiting
        scheduler.cancel(99)  # never was
        results = finish(scheduler)
    assert set(results) == {numbers[1], numbers[2]}
    assert results[numbers[1]] == lm.generate([6], max_new_tokens=20, eos_token_id=[], seed=0)


def test_requests_come_from_other_threads_while_one_thread_steps(lm: TextGenerator) -> None:
    expected = {n: lm.generate([n + 5, 6], max_new_tokens=10, eos_token_id=[]) for n in range(12)}
    asked: dict[int, int] = {}
    results: dict[int, Generation] = {}
    with lm.scheduler(slots=4, max_length=100) as scheduler:

        def submit(first: int) -> None:
            for n in range(first, 12, 3):
                asked[scheduler.submit([n + 5, 6], max_new_tokens=10, eos_token_id=[])] = n

        threads = [threading.Thread(target=submit, args=(first,)) for first in range(3)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads) or scheduler.busy:
            results |= results_of(scheduler.step())
        for thread in threads:
            thread.join()
    assert {asked[number]: result for number, result in results.items()} == expected


def test_arguments_that_a_scheduler_refuses(lm: TextGenerator) -> None:
    with pytest.raises(UsageError, match="slots must be at least 1, not 0"):
        lm.scheduler(slots=0)
    with pytest.raises(UsageError, match="prefill_tokens must be at least 1, not 0"):
        lm.scheduler(prefill_tokens=0)
    with pytest.raises(UsageError, match="kept_prompts must be at least 0, not -1"):
        lm.scheduler(kept_prompts=-1)
    with pytest.raises(UsageError, match="max_length must be between 2 and the model's context of 512, not 513"):
        lm.scheduler(max_length=513)
    with lm.scheduler(slots=2, max_length=20) as scheduler:
        with pytest.raises(
            UsageError, match="the prompt's 15 tokens and 7 new ones are more than the 20 of a slot; give fewer"
        ):
            scheduler.submit([5] * 15, max_new_tokens=7)
        with pytest.raises(UsageError, match="temperature must be 0 or more, not -1"):
            scheduler.submit([5], temperature=-1)
        with pytest.raises(PromptError, match="the prompt is empty"):
            scheduler.submit("")
        with pytest.raises(UsageError, match="a batch does not speculate"):
            scheduler.submit([5], speculate=True)
        assert scheduler.step() == []
        number = scheduler.submit([5] * 15, max_new_tokens=6, eos_token_id=[])
        assert list(finish(scheduler)) == [number]
    with pytest.raises(
        UsageError, match=r"the scheduler is closed; open another one with TextGenerator\.scheduler\(\)"
    ):
        scheduler.submit([5])
    with pytest.raises(UsageError, match="the scheduler is closed"):
        scheduler.step()


def test_two_threads_cannot_step_at_once(lm: TextGenerator, monkeypatch: pytest.MonkeyPatch) -> None:
    inside, go_on = threading.Event(), threading.Event()
    with lm.scheduler(slots=1, max_length=50) as scheduler:
        number = scheduler.submit([5], max_new_tokens=3, eos_token_id=[])
        begin = Batch.begin

        def slow(batch: Batch, sequence: ActiveSequence) -> int:
            inside.set()
            assert go_on.wait(10)
            return begin(batch, sequence)

        monkeypatch.setattr(Batch, "begin", slow)
        thread = threading.Thread(target=scheduler.step)
        thread.start()
        assert inside.wait(10)
        with pytest.raises(UsageError, match="the scheduler is in use, by another thread"):
            scheduler.step()
        go_on.set()
        thread.join()
        assert list(finish(scheduler)) == [number]


def test_a_batch_beyond_memory_is_refused_before_it_is_allocated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm = text_generator(fakes.language_model(tmp_path / "lm"))
    monkeypatch.setattr("intaglio.runtime.decoding.cache.available_memory", lambda: 1_000_000)
    monkeypatch.setattr("intaglio.runtime.decoding.memory.reserve", lambda *_: pytest.fail("allocated"))
    with pytest.raises(PromptError, match=r"the KV cache for 40 prompt\(s\) of 320 tokens needs 7 MB, and 1 MB of mem"):
        lm.generate([[5]] * 40, max_new_tokens=400, batch_size=64)
    with pytest.raises(PromptError, match=r"the KV cache for 9 prompt\(s\) of 320 tokens .* fewer prompts at once"):
        lm.scheduler(slots=9)


def failing(*_: object) -> Any:
    raise PromptError("no memory")


def test_a_failed_step_loses_only_its_requests_and_names_them(
    lm: TextGenerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = lm.generate([9, 8], max_new_tokens=5, eos_token_id=[])
    with lm.scheduler(slots=1, max_length=50) as scheduler:
        lost = scheduler.submit([5], max_new_tokens=3, eos_token_id=[])
        number = scheduler.submit([9, 8], max_new_tokens=5, eos_token_id=[])
        with monkeypatch.context() as patch:
            patch.setattr(Batch, "step", failing)
            *_, event = scheduler.step()
        assert (event.request, event.result, str(event.error)) == (lost, None, "no memory")
        assert (scheduler.running, scheduler.waiting) == (0, 1)
        assert finish(scheduler) == {number: expected}


def test_a_prompt_that_cannot_be_read_stops_no_other(lm: TextGenerator, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = lm.generate([9, 8], max_new_tokens=5, eos_token_id=[])
    with lm.scheduler(slots=2, max_length=50) as scheduler:
        number = scheduler.submit([9, 8], max_new_tokens=5, eos_token_id=[])
        scheduler.step()
        lost = scheduler.submit([5], max_new_tokens=3)
        with monkeypatch.context() as patch:
            patch.setattr(Batch, "read", failing)
            events = scheduler.step()
        assert [event.request for event in events if event.error is not None] == [lost]
        assert finish(scheduler) == {number: expected}


def test_a_long_prompt_is_read_between_the_steps_of_others(lm: TextGenerator) -> None:
    random = np.random.default_rng(0)
    long = random.integers(3, 288, 300).tolist()
    expected = lm.generate(long, max_new_tokens=4, eos_token_id=[])
    with lm.scheduler(slots=2, max_length=400) as scheduler:
        first = scheduler.submit([5], max_new_tokens=40, eos_token_id=[])
        scheduler.step()
        second = scheduler.submit(long, max_new_tokens=4, eos_token_id=[])
        seen = []
        while second not in seen:
            events = scheduler.step()
            assert first in [event.request for event in events] or not any(event.text for event in events)
            seen += [event.request for event in events]
        results = {first: None, second: None} | finish(scheduler)
    assert results[second] == expected
    assert results[first] == lm.generate([5], max_new_tokens=40, eos_token_id=[])


def test_a_prompt_that_begins_as_another_is_read_from_there_on(lm: TextGenerator) -> None:
    random = np.random.default_rng(1)
    system = random.integers(3, 288, 150).tolist()
    prompts = [system + random.integers(3, 288, size).tolist() for size in (70, 90, 20)]
    expected = [lm.generate(prompt, max_new_tokens=6, eos_token_id=[]) for prompt in prompts]
    windowed = any(window is not None for window in lm.manifest.model.layer_windows)
    for together in (False, True):
        cached: dict[int, int] = {}
        results: dict[int, Generation] = {}
        with lm.scheduler(slots=3, max_length=300, kept_prompts=2) as scheduler:
            numbers = []
            for prompt in prompts:
                numbers.append(scheduler.submit(prompt, max_new_tokens=6, eos_token_id=[]))
                while scheduler.busy and not together:
                    for event in scheduler.step():
                        cached[event.request] = event.cached_tokens
                        results |= results_of([event])
            while scheduler.busy:
                for event in scheduler.step():
                    cached[event.request] = event.cached_tokens
                    results |= results_of([event])
        assert [results[number] for number in numbers] == expected
        if not windowed:  # a window has dropped what a shorter prompt needs
            assert [cached[number] for number in numbers] == [0, 150, 150]


def test_prompts_that_are_kept_give_way_to_newer_ones(lm: TextGenerator) -> None:
    random = np.random.default_rng(2)
    prompts = [random.integers(3, 288, 200).tolist() for _ in range(3)]
    cached = []
    with lm.scheduler(slots=1, max_length=300, kept_prompts=2) as scheduler:
        for index in (0, 1, 0, 2, 0, 1):  # 2 takes the place of 1, which is used least recently
            scheduler.submit(prompts[index], max_new_tokens=2, eos_token_id=[])
            events: list[Event] = []
            while scheduler.busy:
                events += scheduler.step()
            cached.append(events[-1].cached_tokens)
            assert events[-1].result == lm.generate(prompts[index], max_new_tokens=2, eos_token_id=[])
    if all(window is None for window in lm.manifest.model.layer_windows):
        assert cached == [0, 0, 192, 0, 192, 0]  # 8 tokens are always read


def test_events_have_the_tokens_since_the_last_one(lm: TextGenerator) -> None:
    with lm.scheduler(slots=2, max_length=100) as scheduler:
        number = scheduler.submit([5, 6], max_new_tokens=12, eos_token_id=[], logprobs=1)
        events = []
        while scheduler.busy:
            events += scheduler.step()
    result = events[-1].result
    assert result is not None
    assert result.logprobs is not None
    assert tuple(token for event in events for token in event.token_ids) == result.token_ids
    assert tuple(one for event in events for one in event.logprobs or ()) == result.logprobs
    assert {event.request for event in events} == {number}


def test_waiting_for_work(lm: TextGenerator) -> None:
    with lm.scheduler(slots=1, max_length=50) as scheduler:
        assert not scheduler.wait(0.01)
        request = scheduler.prepare([5], max_new_tokens=2)
        assert not scheduler.busy
        assert request.prompt_tokens == 1
        timer = threading.Timer(0.05, lambda: scheduler.add(request))
        timer.start()
        assert scheduler.wait(10)
        timer.join()
        assert list(finish(scheduler)) == [request.number]
        closing = threading.Timer(0.05, scheduler.close)
        closing.start()
        assert not scheduler.wait(10)
        closing.join()


def test_a_cancelled_request_leaves_the_queue_and_its_slot(lm: TextGenerator) -> None:
    with lm.scheduler(slots=1, max_length=400) as scheduler:
        first = scheduler.submit([7] * 300, max_new_tokens=20, eos_token_id=[])
        second = scheduler.submit([8], max_new_tokens=2, eos_token_id=[])
        third = scheduler.submit([9], max_new_tokens=2, eos_token_id=[])
        scheduler.cancel(third)
        scheduler.step()
        assert (scheduler.running, scheduler.waiting) == (1, 1)
        scheduler.cancel(first)
        assert list(finish(scheduler)) == [second]
        assert not scheduler._cancelled


@pytest.mark.parametrize("kv_cache", ["exact", "int8"])
@pytest.mark.parametrize("prefill_tokens", [1, 20, 64])
def test_chunks_and_kept_prompts_do_not_change_a_bit_of_quantized_weights(
    quantized: Path, prefill_tokens: int, kv_cache: Any
) -> None:
    """Longer passes multiply by repacked weights; log-probabilities tell what tokens may not."""
    random = np.random.default_rng(3)
    system = random.integers(3, 4000, 130).tolist()
    sizes = (0, 1, 40, 50, 100, 260)
    prompts = [[5, 6, 7], *(system + random.integers(3, 4000, size).tolist() for size in sizes)]
    options: dict[str, Any] = {"max_new_tokens": 5, "eos_token_id": [], "temperature": 0.0, "logprobs": 2}
    with load(quantized, task="text-generation", threads=1, kv_cache=kv_cache) as lm:
        alone = [lm.generate(prompt, speculate=False, **options) for prompt in prompts]
        cached = []
        with lm.scheduler(slots=3, max_length=450, kept_prompts=2, prefill_tokens=prefill_tokens) as scheduler:
            numbers = [scheduler.submit(prompt, **options) for prompt in prompts]
            results: dict[int, Generation] = {}
            while scheduler.busy:
                for event in scheduler.step():
                    results |= results_of([event])
                    cached += [event.cached_tokens] if event.result is not None else []
    assert [results[number] for number in numbers] == alone
    assert max(cached) == 130
