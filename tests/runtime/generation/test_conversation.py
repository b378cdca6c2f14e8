"""Conversations: tokens in the cache are not read again, and the generated tokens stay the same."""

import gc
import threading
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from intaglio.errors import PromptError, UsageError
from intaglio.runtime import Conversation, TextGenerator
from intaglio.runtime.sequence.sampler import Sampler
from intaglio.tests.runtime import fakes
from intaglio.tests.runtime.fakes import text_generator

KINDS: dict[str, dict[str, Any]] = {
    "shared": {},
    "windowed": {"layer_windows": (6, None)},
    "standard": {"target": "standard"},
    "length": {"length_dependent_rope": True},
}


@pytest.fixture(scope="module", params=list(KINDS))
def lm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TextGenerator:
    return text_generator(fakes.language_model(tmp_path_factory.mktemp("lm") / "lm", **KINDS[request.param]))


@pytest.mark.parametrize("seed", range(3))
def test_every_turn_equals_a_call_without_a_cache(
    lm: TextGenerator, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The history is continued, cut, and changed in the middle."""
    monkeypatch.setattr("intaglio.runtime.graph.sliding.BLOCK", 21)
    random = np.random.default_rng(seed)
    history: list[int] = [5, 6, 7]
    conversation = lm.conversation()
    reused = 0
    for _ in range(12):
        options: dict[str, Any] = {
            "max_new_tokens": int(random.integers(1, 30)),
            "seed": 3,
            "temperature": random.choice([0.0, 1.0]),
        }
        result = conversation.generate(history, **options, eos_token_id=[])
        assert result == lm.generate(history, **options, eos_token_id=[])
        reused += conversation.reused
        history = history + list(result.token_ids)
        kind = random.integers(0, 4)
        if kind == 0:
            history = history[: random.integers(1, len(history) + 1)]
        elif kind == 1:
            history[int(random.integers(0, len(history)))] = 17
        history += random.integers(3, 288, random.integers(0, 6)).tolist()
    assert (reused > 0) != lm.manifest.model.length_dependent_rope


def test_a_turn_reads_only_what_is_new(lm: TextGenerator) -> None:
    conversation = lm.conversation()
    reused = []

    def turn(history: list[int], count: int) -> tuple[int, ...]:
        tokens = conversation.generate(history, max_new_tokens=count, eos_token_id=[]).token_ids
        reused.append(conversation.reused)
        return tokens

    history = [5, 6, 7, *turn([5, 6, 7], 10), 9, 8]
    for text in (history, history, [5, 6, 8]):
        turn(text, 4)
    # The last token of an answer has not been read when it is given; the last one of a prompt is read in any case, for
    # its logits.
    wanted = [0, 12, len(history) - 1, 2]
    assert reused == ([0] * 4 if lm.manifest.model.length_dependent_rope else wanted)


def test_a_prompt_outside_the_window_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("intaglio.runtime.graph.sliding.BLOCK", 11)
    lm = text_generator(fakes.language_model(tmp_path / "lm", layer_windows=(6, None)))
    conversation = lm.conversation()
    text = list(range(10, 50))
    reused = []
    for length in (10, 12, 40, 30, 31):
        conversation.generate(text[:length], max_new_tokens=2, eos_token_id=[])
        reused.append(conversation.reused)
    # A buffer of 16 that has read 41 tokens begins at 33, and a text of 30 would need it from 22 on; back from 31 to 30
    # it begins at 22 in either case.
    assert reused == [0, 10, 12, 0, 30]


def test_a_stream_closed_early_keeps_its_tokens_in_the_cache(lm: TextGenerator) -> None:
    conversation = lm.conversation()
    stream = conversation.stream([5, 6, 7], max_new_tokens=40, eos_token_id=[], speculate=False)
    pieces = [next(stream) for _ in range(5)]
    with pytest.raises(
        UsageError, match="the conversation is in use, by another thread or by a stream that has not end"
    ):
        conversation.generate([5], max_new_tokens=1)
    stream.close()
    assert "".join(pieces) == lm.generate([5, 6, 7], max_new_tokens=40, eos_token_id=[]).text[: len("".join(pieces))]
    again = conversation.generate([5, 6, 7], max_new_tokens=20, eos_token_id=[])
    assert again == lm.generate([5, 6, 7], max_new_tokens=20, eos_token_id=[])
    assert list(conversation.stream([5], max_new_tokens=3)) == list(lm.stream([5], max_new_tokens=3))


def test_a_conversation_works_after_a_failed_turn(lm: TextGenerator, monkeypatch: pytest.MonkeyPatch) -> None:
    conversation = lm.conversation()
    history = list(conversation.generate([5, 6, 7], max_new_tokens=5, eos_token_id=[]).token_ids)
    choose, calls = Sampler.choose, iter(range(100))

    def fails(sampler: Sampler, logits: np.ndarray) -> int:
        if next(calls) == 3:
            raise KeyboardInterrupt
        return choose(sampler, logits)

    with monkeypatch.context() as patch:
        patch.setattr(Sampler, "choose", fails)
        with pytest.raises(KeyboardInterrupt):
            conversation.generate([5, 6, 7, *history], max_new_tokens=10, eos_token_id=[])
    again = conversation.generate([5, 6, 7, *history], max_new_tokens=10, eos_token_id=[])
    assert conversation.reused == 0
    assert again == lm.generate([5, 6, 7, *history], max_new_tokens=10, eos_token_id=[])


def test_settings_and_prompts_are_checked_at_the_call(lm: TextGenerator) -> None:
    conversation = lm.conversation()
    with pytest.raises(UsageError, match="temperature must be 0 or more, not -2"):
        conversation.stream([5], temperature=-2)
    with pytest.raises(PromptError, match="the prompt has 512 tokens, the model's context is 512"):
        conversation.stream([5] * 512)
    with pytest.raises(UsageError, match="generate has no option 'temprature'; did you mean 'temperature'"):
        conversation.generate([5], temprature=1)  # type: ignore[call-arg]


def test_a_conversation_that_is_closed(lm: TextGenerator) -> None:
    with lm.conversation() as conversation:
        conversation.generate([5], max_new_tokens=2)
    with pytest.raises(
        UsageError, match=r"the conversation is closed; open another one with TextGenerator.conversation"
    ):
        conversation.generate([5], max_new_tokens=2)


def test_two_threads_cannot_use_one_conversation_at_once(lm: TextGenerator) -> None:
    conversation = lm.conversation()
    stream = conversation.stream([5], max_new_tokens=30, eos_token_id=[])
    next(stream)
    refused: list[UsageError] = []

    def use(held: Conversation) -> None:
        try:
            held.generate([6], max_new_tokens=1)
        except UsageError as error:
            refused.append(error)

    thread = threading.Thread(target=use, args=(conversation,))
    thread.start()
    thread.join()
    assert [str(error) for error in refused] == [
        "the conversation is in use, by another thread or by a stream that has not ended; "
        "open another one with TextGenerator.conversation()"
    ]
    assert len(list(stream)) > 1


class TestClosing:
    """Close a model, then use it."""

    @pytest.fixture
    def lm(self, tmp_path: Path) -> TextGenerator:
        return text_generator(fakes.language_model(tmp_path / "lm"))

    def test_every_call_is_refused(self, lm: TextGenerator) -> None:
        conversation, scheduler = lm.conversation(), lm.scheduler(max_length=50)
        with lm:
            lm.generate([5], max_new_tokens=1)
        lm.close()
        calls = (
            lambda: lm.generate([5]),
            lambda: lm.generate([[5], [6]]),
            lambda: lm.stream([5]),
            lambda: lm.score([5, 6]),
            lm.conversation,
            lm.scheduler,
        )
        for call in calls:
            with pytest.raises(UsageError, match="the model is closed; load it again"):
                call()
        with pytest.raises(UsageError, match="the conversation is closed"):
            conversation.generate([5])
        with pytest.raises(UsageError, match="the scheduler is closed"):
            scheduler.step()
        assert lm.manifest.task == "text-generation"

    def test_the_weights_are_released_though_conversations_and_schedulers_remain(self, lm: TextGenerator) -> None:
        conversation, scheduler = lm.conversation(), lm.scheduler(max_length=50)
        conversation.generate([5], max_new_tokens=2)
        scheduler.submit([5], max_new_tokens=9)
        scheduler.step()
        weights = weakref.ref(lm.session.raw)
        assert weights() is not None
        lm.close()
        gc.collect()
        assert weights() is None
        assert not scheduler.busy

    def test_running_streams_finish(self, lm: TextGenerator) -> None:
        expected = lm.generate([5], max_new_tokens=20, eos_token_id=[]).text
        stream, talk = (make([5], max_new_tokens=20, eos_token_id=[]) for make in (lm.stream, lm.conversation().stream))
        pieces, said = [next(stream)], [next(talk)]
        lm.close()
        assert "".join(pieces + list(stream)) == expected
        assert "".join(said + list(talk)) == expected
