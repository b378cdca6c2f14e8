"""A scheduler's request that runs alone is decoded with guesses, and its results are those of plain decoding."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from intaglio import load
from intaglio.runtime import Generation, Scheduler, TextGenerator
from intaglio.runtime.decoding.decoder import Decoder
from intaglio.runtime.generation import generator
from intaglio.runtime.generation.speculation import Rounds
from intaglio.tests.runtime import fakes
from intaglio.tests.runtime.fakes import text_generator

KINDS: dict[str, dict[str, Any]] = {"shared": {}, "windowed": {"layer_windows": (6, None)}}
LOOPING = [5, 6, 7] * 12


@pytest.fixture(scope="module", params=list(KINDS))
def lm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TextGenerator:
    return text_generator(fakes.language_model(tmp_path_factory.mktemp("lm") / "lm", **KINDS[request.param]))


def finish(scheduler: Scheduler) -> tuple[dict[int, Generation], int]:
    """Step until all requests have ended; return their results, and the number of steps."""
    results: dict[int, Generation] = {}
    steps = 0
    while scheduler.busy:
        results |= {event.request: event.result for event in scheduler.step() if event.result is not None}
        steps += 1
    return results, steps


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_request_that_runs_alone_takes_fewer_steps_than_it_has_tokens(lm: TextGenerator, temperature: float) -> None:
    options: dict[str, Any] = {"max_new_tokens": 100, "eos_token_id": [], "temperature": temperature, "seed": 3}
    plain = lm.generate(LOOPING, speculate=False, **options)
    with lm.scheduler(slots=2, max_length=200) as scheduler:
        number = scheduler.submit(LOOPING, **options)
        results, steps = finish(scheduler)
        assert results == {number: plain}
        if temperature == 0:
            assert steps < 90
        without = scheduler.submit(LOOPING, speculate=False, **options)
        results, steps = finish(scheduler)
        assert results == {without: plain}
        assert steps == 99  # the first token comes with the prompt


def test_two_requests_are_decoded_without_guesses(lm: TextGenerator, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[bool] = []
    following = Rounds.next

    def recorded(rounds: Rounds, decoder: Decoder) -> list[str]:
        steps[-1] = True
        return following(rounds, decoder)

    monkeypatch.setattr(Rounds, "next", recorded)
    with lm.scheduler(slots=2, max_length=200) as scheduler:
        scheduler.submit(LOOPING, max_new_tokens=200 - len(LOOPING), eos_token_id=[])
        for count in range(5):
            steps.append(False)
            scheduler.step()
            if count == 0:
                scheduler.submit([9, 8], max_new_tokens=4, eos_token_id=[])
        finish(scheduler)
    assert steps[:5] == [True, False, False, False, True]


@pytest.mark.parametrize("seed", range(4))
def test_guesses_between_steps_of_a_batch_change_no_token(
    lm: TextGenerator, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests come while one runs alone, and some are cancelled, so that guesses and batches alternate."""
    monkeypatch.setattr("intaglio.runtime.graph.sliding.BLOCK", 10)
    random = np.random.default_rng(seed)
    prompts = [random.integers(3, 40, random.integers(1, 9)).tolist() * int(random.integers(1, 20)) for _ in range(12)]
    options: list[dict[str, Any]] = [
        {"max_new_tokens": int(n), "temperature": float(t), "seed": 5, "eos_token_id": [7, 8]}
        for n, t in zip(random.integers(1, 60, 12), random.choice([0.0, 0.0, 1.2], 12), strict=True)
    ]
    expected = [lm.generate(prompt, speculate=False, **o) for prompt, o in zip(prompts, options, strict=True)]
    found: dict[int, Generation] = {}
    cancelled: set[int] = set()
    with lm.scheduler(slots=2, max_length=250, kept_prompts=1) as scheduler:
        numbers: dict[int, Generation] = {}
        for prompt, how, alone in zip(prompts, options, expected, strict=True):
            numbers[scheduler.submit(prompt, **how)] = alone
            for _ in range(random.integers(0, 25)):
                found |= {event.request: event.result for event in scheduler.step() if event.result is not None}
            if random.random() < 0.2:
                cancelled.add(int(random.choice(list(numbers))))
                scheduler.cancel(max(cancelled))
        rest, _ = finish(scheduler)
    found |= rest
    assert found == {number: alone for number, alone in numbers.items() if number in found}
    assert set(numbers) - set(found) <= cancelled


def test_guesses_do_not_change_a_bit_of_quantized_weights(quantized: Path) -> None:
    """Log-probabilities tell what tokens may not."""
    random = np.random.default_rng(3)
    prompts = [random.integers(3, 4000, 6).tolist() * 15, [5, 6, 7], random.integers(3, 4000, 20).tolist() * 3]
    options: dict[str, Any] = {"max_new_tokens": 50, "eos_token_id": [], "temperature": 0.0, "logprobs": 2}
    with load(quantized, task="text-generation", threads=1) as lm:
        alone = [lm.generate(prompt, speculate=False, **options) for prompt in prompts]
        with lm.scheduler(slots=2, max_length=200, kept_prompts=2) as scheduler:
            for prompt in prompts * 2:  # the second time, their beginnings are kept
                number = scheduler.submit(prompt, **options)
                results, steps = finish(scheduler)
                assert results[number] == alone[prompts.index(prompt)]
                assert steps <= 51
            first = scheduler.submit(prompts[0], **options)
            for _ in range(2):  # a few tokens each, as the text is known from before
                scheduler.step()
            second = scheduler.submit(prompts[2], **options)
            results, steps = finish(scheduler)
    assert results == {first: alone[0], second: alone[2]}


def test_no_guesses_where_they_would_change_results(lm: TextGenerator, monkeypatch: pytest.MonkeyPatch) -> None:
    with lm.scheduler(slots=1, max_length=50) as scheduler:
        assert scheduler.prepare([5], max_new_tokens=9).rounds is not None
        monkeypatch.setattr(generator, "pass_dependence", lambda _: "its activations are float16")
        assert scheduler.prepare([5], max_new_tokens=9).rounds is None


def test_an_error_of_one_request_ends_no_other(lm: TextGenerator) -> None:
    """A function of the caller, or options that exclude every token, fail between the model's passes."""
    seen = []

    def failing(tokens: Any, logits: Any) -> Any:
        seen.append(len(tokens))
        if len(seen) > 3:
            raise RuntimeError("no more")
        return logits

    expected = lm.generate([9, 8], max_new_tokens=9, eos_token_id=[])
    for first in (False, True):
        seen.clear()
        with lm.scheduler(slots=2, max_length=50) as scheduler:
            options: dict[str, Any] = {"max_new_tokens": 9, "eos_token_id": []}
            others = [scheduler.submit([9, 8], **options)] if first else []
            lost = scheduler.submit([5], logits_processor=failing, **options)
            events = [event for _ in range(5) for event in scheduler.step()]
            assert [(event.request, str(event.error)) for event in events if event.error] == [(lost, "no more")]
            others.append(scheduler.submit([9, 8], **options))
            results = {event.request: event.result for event in events if event.result is not None}
            results |= finish(scheduler)[0]
        assert results == dict.fromkeys(others, expected)


def test_the_time_of_a_request_ends_while_it_waits_and_while_it_is_read(lm: TextGenerator) -> None:
    with lm.scheduler(slots=1, max_length=400) as scheduler:
        running = scheduler.submit([5], max_new_tokens=30, eos_token_id=[])
        scheduler.step()
        late = scheduler.submit([6], max_new_tokens=30, max_time=1e-9)
        (event,) = [event for event in scheduler.step() if event.request == late]
        assert event.result is not None
        assert (event.result.finish_reason, event.result.token_ids) == ("time", ())
        assert list(finish(scheduler)[0]) == [running]
    with lm.scheduler(slots=2, max_length=400) as scheduler:
        running = scheduler.submit([5], max_new_tokens=90, eos_token_id=[])
        scheduler.step()
        request = scheduler.prepare([6] * 300, max_new_tokens=30, max_time=1000)
        scheduler.add(request)
        scheduler.step()
        assert (scheduler.running, scheduler.waiting) == (2, 0)
        request.sequence._deadline = 0.0
        (event,) = [event for event in scheduler.step() if event.request == request.number]
        assert event.result is not None
        assert (event.result.finish_reason, event.result.token_ids) == ("time", ())
        assert scheduler.running == 1
