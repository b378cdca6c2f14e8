"""Measured speeds, with a clock that the test controls."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from intaglio.artifact import Task
from intaglio.errors import UsageError
from intaglio.runtime import TextGenerator, load
from intaglio.runtime.measure import GenerationTimes, HeadTimes, spread, time_generation, time_head, timed_load
from intaglio.tests.runtime import fakes

TABLE = np.random.default_rng(0).normal(scale=0.05, size=(fakes.VOCAB, 2))
CONTEXT = 128


@pytest.fixture(scope="module")
def lm(tmp_path_factory: pytest.TempPathFactory) -> TextGenerator:
    model = load(fakes.language_model(tmp_path_factory.mktemp("lm") / "out", context_length=CONTEXT), threads=1)
    assert isinstance(model, TextGenerator)
    return model


class Calls:
    """A mock of ``generate`` with a clock: 0.01 s for each token of the prompt, 1 s for each new token."""

    def __init__(self, model: TextGenerator, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        self.prompts: list[list[int]] = []
        self.options: list[dict[str, Any]] = []
        monkeypatch.setattr(model, "generate", self)

    def __call__(self, prompt: list[int], **options: Any) -> None:
        self.prompts.append(prompt)
        self.options.append(options)
        self.now += 0.01 * len(prompt) + options["max_new_tokens"] - 1

    def clock(self) -> float:
        return self.now


def test_rates_come_from_calls_for_one_token_and_for_all(lm: TextGenerator, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = Calls(lm, monkeypatch)
    reported: list[tuple[int, int]] = []
    times = time_generation(
        lm, prompt_tokens=50, new_tokens=5, repeats=3, report=lambda *step: reported.append(step), clock=calls.clock
    )
    assert times.first == pytest.approx((0.5, 0.5, 0.5))
    assert times.prefill == pytest.approx((100.0, 100.0, 100.0))
    assert times.decode == pytest.approx((1.0, 1.0, 1.0))
    assert [options["max_new_tokens"] for options in calls.options] == [5, 1, 5, 1, 5, 1, 5]  # the first is not timed
    assert reported == [*((done, 7) for done in range(1, 8))]
    assert len({tuple(prompt) for prompt in calls.prompts}) == 7
    assert {len(prompt) for prompt in calls.prompts} == {50}
    rest = {key: value for key, value in calls.options[0].items() if key != "max_new_tokens"}
    assert rest == {"temperature": 0.0, "repetition_penalty": 1.0, "stop": (), "eos_token_id": (), "speculate": False}


def test_lengths_follow_the_context(lm: TextGenerator, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = Calls(lm, monkeypatch)
    for asked, got in (((None, None), (64, 64)), ((100, None), (100, 28)), ((None, 100), (28, 100)), ((3, 2), (3, 2))):
        times = time_generation(lm, prompt_tokens=asked[0], new_tokens=asked[1], repeats=1, clock=calls.clock)
        assert (times.prompt_tokens, times.new_tokens) == got
    for asked, message in (
        ((100, 29), "100 tokens and 29 new ones are more than the model's context of 128; give fewer"),
        ((128, None), "a prompt of 128 tokens leaves no room"),
        ((0, 5), "at least 1"),
    ):
        with pytest.raises(UsageError, match=message):
            time_generation(lm, prompt_tokens=asked[0], new_tokens=asked[1])
    with pytest.raises(UsageError, match="repeats must be at least 1, not 0"):
        time_generation(lm, repeats=0)


def test_a_real_run(lm: TextGenerator) -> None:
    times = time_generation(lm, prompt_tokens=8, new_tokens=24, repeats=2)
    assert min(times.first + times.whole) > 0
    assert len(times.prefill) == 2


def test_decode_faster_than_the_clock_resolves_has_no_rate() -> None:
    times = GenerationTimes(8, 3, first=(0.2, 0.1, 0.3), whole=(0.1, 0.2, 0.3))
    assert times.decode == pytest.approx((20.0,))
    assert spread(GenerationTimes(8, 3, first=(0.2,), whole=(0.2,)).decode) is None
    assert spread((3.0, 1.0, 2.5)) == (2.5, 1.0, 3.0)
    assert HeadTimes(64, 32, 16, (0.5, 2.0)).rate == (128.0, 32.0)


@pytest.mark.parametrize(
    ("task", "pad", "batch"),
    [
        ("text-classification", 0, 16),
        ("text-classification", None, 1),
        ("token-classification", 0, 16),
        ("question-answering", 0, 16),
        ("feature-extraction", None, 16),
    ],
)
def test_heads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: Task, pad: int | None, batch: int) -> None:
    model = load(fakes.head(tmp_path / task, task, TABLE, pad_token_id=pad))
    sizes: list[int] = []
    ran = model.session.raw.run
    session = model.session
    monkeypatch.setattr(type(session), "run", lambda _, feeds, outputs: _recorded(sizes, ran, feeds, outputs))
    times = time_head(model, tokens=4, repeats=2)
    assert (times.sentences, times.tokens, times.batch, len(times.whole)) == (64, 4, batch, 2)
    assert sizes == [batch] * (3 * 64 // batch)
    assert min(times.whole) > 0


def _recorded(sizes: list[int], ran: Any, feeds: dict[str, Any], outputs: tuple[str, ...]) -> Any:
    sizes.append(len(feeds["input_ids"]))
    return ran(list(outputs), feeds)


def test_sentences_longer_than_the_context_are_refused(tmp_path: Path) -> None:
    model = load(
        fakes.head(tmp_path / "out", "text-classification", TABLE, context_length=CONTEXT), task="text-classification"
    )
    with pytest.raises(UsageError, match="129 tokens are more than the model's context of 128; give fewer"):
        time_head(model, tokens=CONTEXT + 1)


def test_loading_is_timed_without_the_import(lm: TextGenerator) -> None:
    ticks = iter((10.0, 10.25))
    folder = lm.session.folder
    model, seconds = timed_load(folder, device="cpu", threads=1, kernels="auto", clock=lambda: next(ticks))
    assert isinstance(model, TextGenerator)
    assert seconds == 0.25
