"""Speculation: the same tokens from fewer passes, with any proposer and any guesses."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from intaglio.artifact import Precision, TensorEntry
from intaglio.errors import UsageError
from intaglio.runtime import TextGenerator
from intaglio.runtime.decoding.in_place import InPlaceDecoder
from intaglio.runtime.engine.session import Device
from intaglio.runtime.generation.speculation import LONGEST_PASS, PromptLookup, Speculation, most_guesses
from intaglio.tests.runtime import fakes
from intaglio.tests.runtime.fakes import logprobs_of, text_generator, tokenizer_of

KINDS: dict[str, dict[str, Any]] = {"shared": {}, "windowed": {"layer_windows": (6, None)}}
PROMPTS = [[5, 6, 7] * 12, [11], [20, 30, 40, 50, 60, 2, 1], list(range(3, 60)) * 2]


@pytest.fixture(scope="module", params=list(KINDS))
def lm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TextGenerator:
    return text_generator(fakes.language_model(tmp_path_factory.mktemp("lm") / "lm", **KINDS[request.param]))


class Oracle:
    """A proposer of the tokens generated without speculation, some of them replaced by wrong ones."""

    def __init__(self, tokens: tuple[int, ...], prompt: int, errors: float) -> None:
        self.tokens, self.prompt, self.errors = tokens, prompt, errors
        self.random = np.random.default_rng(0)

    def propose(self, history: list[int], count: int) -> list[int]:
        made = len(history) - self.prompt
        return [3 if self.random.random() < self.errors else t for t in self.tokens[made : made + count]]


@pytest.mark.parametrize("errors", [0.0, 0.2, 1.0])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"temperature": 1.3, "seed": 4, "top_p": 0.9},
        {"repetition_penalty": 1.5},
        {"temperature": 0.8, "seed": 1, "eos_token_id": list(range(100, 110))},
    ],
    ids=["greedy", "sampled", "penalised", "ending"],
)
def test_guesses_change_no_token(
    lm: TextGenerator, options: dict[str, Any], errors: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("intaglio.runtime.graph.sliding.BLOCK", 10)
    options = {"eos_token_id": [], "max_new_tokens": 60, **options}
    for prompt in PROMPTS:
        plain = lm.generate(prompt, speculate=False, **options)
        oracle = Speculation(Oracle(plain.token_ids, len(prompt), errors), 15)
        with monkeypatch.context() as patch:
            patch.setattr("intaglio.runtime.generation.generator.Speculation", lambda *_, known=oracle: known)
            assert lm.generate(prompt, **options) == plain
        assert oracle.proposed > 0 or len(plain.token_ids) < 3
        if errors == 0.0 and len(plain.token_ids) == 60:
            assert oracle.accepted == oracle.proposed > 40


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_lookup_is_on_by_default_and_changes_no_token(lm: TextGenerator, temperature: float) -> None:
    for prompt in PROMPTS:
        options: dict[str, Any] = {
            "max_new_tokens": 80,
            "eos_token_id": [],
            "temperature": temperature,
            "seed": 2,
            "logprobs": 2,
        }
        plain = lm.generate(prompt, speculate=False, **options)
        for speculate in (None, True):
            found = lm.generate(prompt, speculate=speculate, **options)
            assert found.token_ids == plain.token_ids
            assert found.text == plain.text == "".join(lm.stream(prompt, speculate=speculate, **options))
            for mine, theirs in zip(logprobs_of(found), logprobs_of(plain), strict=True):
                assert mine.logprob == pytest.approx(theirs.logprob, abs=1e-4)


def test_accepted_guesses_save_passes(lm: TextGenerator, monkeypatch: pytest.MonkeyPatch) -> None:
    passes = []

    def counted(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            passes.append(1)
            return original(*arguments, **options)

        return call

    for name in ("extend", "step"):
        monkeypatch.setattr(InPlaceDecoder, name, counted(getattr(InPlaceDecoder, name)))
    plain = lm.generate([5, 6, 7], max_new_tokens=61, speculate=False, eos_token_id=[])
    assert len(passes) == 61
    oracle = Speculation(Oracle(plain.token_ids, 3, errors=0.0), 15)
    monkeypatch.setattr("intaglio.runtime.generation.generator.Speculation", lambda *_: oracle)
    assert lm.generate([5, 6, 7], max_new_tokens=61, eos_token_id=[]) == plain
    assert len(passes) - 61 == 6  # of 1 token, 4, 8, 16, 16 and 16


def test_a_draft_model_guesses(lm: TextGenerator, tmp_path: Path) -> None:
    prompt = [5, 6, 7] * 5
    plain = lm.generate(prompt, max_new_tokens=60, eos_token_id=[])
    twin = text_generator(fakes.language_model(tmp_path / "twin"))
    stranger = text_generator(
        fakes.language_model(tmp_path / "stranger", seed=9, context_length=40)
    )  # shorter than the text
    assert lm.generate(prompt, max_new_tokens=60, eos_token_id=[], draft=twin) == plain
    assert lm.generate(prompt, max_new_tokens=60, eos_token_id=[], draft=stranger) == plain
    assert lm.generate(prompt, max_new_tokens=60, eos_token_id=[], draft=lm) == plain
    sampled: dict[str, Any] = {"max_new_tokens": 60, "eos_token_id": [], "temperature": 1.0, "seed": 3}
    assert lm.generate(prompt, **sampled, draft=stranger) == lm.generate(prompt, **sampled, speculate=False)
    conversation = lm.conversation()
    assert conversation.generate(prompt, max_new_tokens=60, eos_token_id=[], draft=twin) == plain


def test_a_draft_of_the_same_weights_is_always_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lm = text_generator(fakes.language_model(tmp_path / "lm"))
    updates = []
    monkeypatch.setattr(Speculation, "update", lambda self, proposed, accepted: updates.append((proposed, accepted)))
    lm.generate([9, 8, 7], max_new_tokens=60, eos_token_id=[], draft=lm)
    assert all(proposed == accepted for proposed, accepted in updates)
    assert len(updates) >= 15


def test_arguments_that_speculation_refuses(lm: TextGenerator, tmp_path: Path) -> None:
    other = text_generator(fakes.language_model(tmp_path / "other", tokenizer=False, vocab_size=290))
    with pytest.raises(
        UsageError, match=r"other cannot draft for .*lm: it has 290 token ids, the model has 288; use a draft of"
    ):
        lm.generate([5], draft=other)
    with pytest.raises(UsageError, match="draft proposes tokens, and speculate=False forbids proposals"):
        lm.generate([5], draft=other, speculate=False)
    with pytest.raises(
        UsageError, match="a batch does not speculate: leave out speculate and draft, or give batch_size=1"
    ):
        lm.generate([[5], [6]], speculate=True)
    pair = lm.generate([[5], [6]], max_new_tokens=4)
    assert lm.generate([[5], [6]], max_new_tokens=4, speculate=True, batch_size=1) == pair
    kinds: tuple[dict[str, Any], ...] = ({"target": "standard"}, {"length_dependent_rope": True})
    for options in kinds:
        without = text_generator(fakes.language_model(tmp_path / next(iter(options)), **options))
        assert without.generate([5] * 20, max_new_tokens=9).token_ids
        with pytest.raises(
            UsageError, match="cannot speculate: that needs target 'ort', and rotary frequencies that do"
        ):
            without.generate([5], speculate=True)


def test_a_draft_with_another_vocabulary(lm: TextGenerator, tmp_path: Path) -> None:
    folder = fakes.language_model(tmp_path / "other", files={"x": "y"})
    other = text_generator(folder)
    tokenizer_of(other).backend.add_tokens(["<new>"])
    with pytest.raises(UsageError, match="its tokenizer has another vocabulary"):
        lm.generate([5], draft=other)


class TestLookup:
    """Prompt lookup proposes the tokens after an earlier occurrence of the last tokens."""

    def test_the_longer_match_wins_then_the_later(self) -> None:
        lookup = PromptLookup()
        text = [1, 2, 3, 4, 5, 60, 9, 3, 4, 5, 70, 9, 1, 2, 3, 4, 5]
        assert lookup.propose(text, 2) == [60, 9]
        assert lookup.propose([*text, 0, 3, 4, 5], 3) == [0, 3, 4]

    def test_new_tokens_are_indexed_from_call_to_call(self) -> None:
        lookup = PromptLookup()
        history = [1, 2]
        assert lookup.propose(history, 4) == []
        for token in (3, 4, 1, 2):
            history.append(token)
            assert lookup.propose(history, 4) == []
        history.append(3)
        assert lookup.propose(history, 4) == [4, 1, 2, 3]
        history += [4, 1]
        assert lookup.propose(history, 1) == [2]

    def test_a_match_is_not_the_end_itself(self) -> None:
        assert PromptLookup().propose([1, 2, 3], 4) == []
        assert PromptLookup().propose([7, 7, 7, 7], 4) == [7]


def test_the_number_of_guesses_follows_the_number_accepted() -> None:
    asked = []

    class Counts:
        def propose(self, history: list[int], count: int) -> list[int]:
            asked.append(count)
            return [0] * count

    speculation = Speculation(Counts(), LONGEST_PASS - 1)
    for accepted in (3, 7, 15, 15, 4, 0, 1, 3, 2):
        guesses = speculation.guesses([1], 99)
        speculation.update(len(guesses), accepted)
    assert asked == [3, 7, 15, 15, 15, 4, 1, 3, 7]
    assert speculation.guesses([1], 2) == [0, 0]
    assert speculation.guesses([1], 0) == []
    assert max(asked) == LONGEST_PASS - 1


def test_speculation_pauses_after_misses_in_a_row() -> None:
    class Wrong:
        def propose(self, history: list[int], count: int) -> list[int]:
            return [0] * count

    speculation = Speculation(Wrong(), 15)
    tried = []
    for step in range(60):
        if guesses := speculation.guesses([1], 9):
            tried.append((step, len(guesses)))
            speculation.update(len(guesses), 0)
    assert tried == [(0, 3), (1, 1), (3, 1), (7, 1), (15, 1), (31, 1), (47, 1)]
    speculation.guesses([1], 9)
    for _ in range(20):
        if guesses := speculation.guesses([1], 9):
            speculation.update(len(guesses), len(guesses))
            break
    assert speculation.guesses([1], 9) == [0, 0, 0]


@pytest.mark.parametrize(
    ("device", "precisions", "most"),
    [("cpu", ("int8", "int4"), 15), ("cuda", ("int4", "fp16"), 15), ("cuda", ("int8", "int4"), 4), ("cuda", (), 15)],
)
def test_the_most_guesses_are_those_of_the_device(
    tmp_path: Path, device: Device, precisions: tuple[Precision, ...], most: int
) -> None:
    """On CUDA weights of 8 bits are multiplied as they are with at most 5 tokens (``m > 5`` in matmul_8bits.cu)."""
    session = text_generator(fakes.language_model(tmp_path / "lm")).session
    tensors = {f"w{index}": TensorEntry(one, (1,), ()) for index, one in enumerate(precisions)}
    session = replace(session, device=device, manifest=replace(session.manifest, tensors=tensors))
    assert most_guesses(session) == most


def test_few_guesses_stay_few() -> None:
    asked: list[int] = []

    class Right:
        def propose(self, history: list[int], count: int) -> list[int]:
            asked.append(count)
            return [1] * count

    speculation = Speculation(Right(), 2)
    for _ in range(5):
        guesses = speculation.guesses([1], 100)
        speculation.update(len(guesses), len(guesses))
    assert asked == [2] * 5


def test_half_precision_does_not_speculate_unasked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that decodes with target ort on CUDA has half precision, whose checked guesses may change tokens."""
    lm = text_generator(fakes.language_model(tmp_path / "lm"))
    half = replace(lm.manifest, model=replace(lm.manifest.model, cache_dtype="float16"))
    monkeypatch.setattr(lm, "_loaded", replace(lm.session, device="cuda", manifest=half))
    assert lm.speculation_note == "checking guesses may change tokens: its activations are float16"
