"""Speculation: the same tokens from fewer passes, with any proposer and any guesses."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from intaglio.artifact import FileEntry, Precision, TensorEntry
from intaglio.errors import UsageError
from intaglio.runtime import TextGenerator
from intaglio.runtime.decoding.in_place import InPlaceDecoder
from intaglio.runtime.engine.session import Device, Session
from intaglio.runtime.generation.draft_model import draft_cost
from intaglio.runtime.generation.guesses.pass_cost import LONGEST_PASS, PassCost, pass_cost
from intaglio.runtime.generation.speculation import Speculation
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

    def begin(self, history: list[int]) -> "Certain":
        left = self.tokens[len(history) - self.prompt :]
        return Certain([3 if self.random.random() < self.errors else token for token in left])


class Certain:
    """Proposes tokens one by one, each as certain as is said."""

    def __init__(self, tokens: list[int], likely: float = 0.999) -> None:
        self.tokens, self.likely, self.taken = tokens, likely, 0

    def guess(self) -> tuple[int, float] | None:
        return (self.tokens[self.taken], self.likely) if self.taken < len(self.tokens) else None

    def take(self, token: int) -> None:
        self.taken += 1


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
        oracle = Speculation(Oracle(plain.token_ids, len(prompt), errors), PassCost())
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
    oracle = Speculation(Oracle(plain.token_ids, 3, errors=0.0), PassCost())
    monkeypatch.setattr("intaglio.runtime.generation.generator.Speculation", lambda *_: oracle)
    assert lm.generate([5, 6, 7], max_new_tokens=61, eos_token_id=[]) == plain
    assert len(passes) - 61 == 5  # the prompt, and four of 16, 16, 16 and 12 tokens


def test_a_draft_model_guesses(lm: TextGenerator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("intaglio.runtime.generation.generator.draft_cost", lambda *_: 0.1)
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
    monkeypatch.setattr("intaglio.runtime.generation.generator.draft_cost", lambda *_: 0.05)
    monkeypatch.setattr(Speculation, "update", lambda self, proposed, accepted: updates.append((proposed, accepted)))
    lm.generate([9, 8, 7], max_new_tokens=60, eos_token_id=[], draft=lm)
    assert all(proposed == accepted for proposed, accepted in updates)
    assert len(updates) >= 15


def test_a_draft_costs_the_bytes_of_its_weights(lm: TextGenerator) -> None:
    def sized(size: int) -> Session:
        manifest = lm.session.manifest
        return replace(
            lm.session, manifest=replace(manifest, files=manifest.files | {manifest.data: FileEntry("", size)})
        )

    assert draft_cost(sized(4000), sized(1000)) == 0.25
    assert draft_cost(sized(4000), sized(4000)) == 1


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


class Plain:
    """A sequence without a constraint and without end tokens."""

    def ahead(self) -> None:
        return None

    def ends_with(self, token: int) -> bool:
        return token == 2


class Fixed:
    """A proposer of the same tokens every time."""

    def __init__(self, tokens: list[int], likely: float) -> None:
        self.tokens, self.likely = tokens, likely

    def begin(self, history: list[int]) -> Certain:
        return Certain(self.tokens, self.likely)


def guesses(likely: float, cost: PassCost | None = None, room: int = 99, tokens: Sequence[int] = range(3, 40)) -> int:
    """Return how many guesses of a probability are made."""
    speculation = Speculation(Fixed(list(tokens), likely), cost or PassCost())
    plain: Any = Plain()
    return len(speculation.draft(plain, [1], room, room).tokens)


def test_one_guess_is_nearly_free_and_likely_ones_are_more() -> None:
    assert guesses(0.01) == 0
    counts = [guesses(likely) for likely in (0.12, 0.3, 0.6, 0.8, 0.9, 0.999)]
    assert counts[0] == 1
    assert counts == sorted(counts)
    assert counts[-1] == LONGEST_PASS - 1
    assert guesses(0.999, room=5) == 4  # with the last token, five can be rolled back
    assert guesses(0.99, room=1) == 0
    assert guesses(0.99, tokens=[]) == 0
    assert guesses(0.99, tokens=[5, 6, 2, 7]) == 2  # not the end token: nothing comes after it


def test_the_number_of_guesses_makes_the_most_tokens_for_the_cost() -> None:
    """Against every number of guesses, with the sums written out."""
    for likely in np.linspace(0.02, 0.99, 25):
        for cost in (PassCost(), PassCost(guess=0.1), PassCost(guess=0.4)):
            rates = [sum(likely**i for i in range(n + 1)) / cost.of(n + 1, n) for n in range(LONGEST_PASS)]
            assert rates[guesses(likely, cost)] == pytest.approx(max(rates))


def test_a_draft_model_that_costs_as_much_as_the_model_proposes_next_to_nothing() -> None:
    assert guesses(0.9, PassCost(guess=1.0)) == 0
    assert guesses(0.99, PassCost(guess=0.2)) > 4


def test_what_a_pass_costs() -> None:
    cost = PassCost()
    costs = [cost.of(tokens) for tokens in range(1, 64)]
    assert costs[0] == 1.0
    assert costs[1] < 1.15
    assert costs == sorted(costs)
    assert all(one / (n + 1) <= 1 for n, one in enumerate(costs))
    assert cost.of(6) == pytest.approx((cost.of(4) + cost.of(8)) / 2)
    assert cost.of(5, 2) == cost.of(5)
    assert PassCost(guess=0.5).of(5, 2) == cost.of(5) + 1
    # Alone any tokens are worth a pass; beside seven others a step costs each of them as little.
    assert not cost.batch_is_cheaper(2, 1)
    assert cost.batch_is_cheaper(2, 8)
    assert cost.batch_is_cheaper(2, 2)
    assert not cost.batch_is_cheaper(8, 4)


@pytest.mark.parametrize(
    ("device", "precisions", "longest"),
    [("cpu", ("int8", "int4"), 16), ("cuda", ("int4", "fp16"), 16), ("cuda", ("int8", "int4"), 5), ("cuda", (), 16)],
)
def test_the_longest_pass_is_that_of_the_device(
    tmp_path: Path, device: Device, precisions: tuple[Precision, ...], longest: int
) -> None:
    """On CUDA weights of 8 bits are multiplied as they are with at most 5 tokens (``m > 5`` in matmul_8bits.cu)."""
    session = text_generator(fakes.language_model(tmp_path / "lm")).session
    tensors = {f"w{index}": TensorEntry(one, (1,), ()) for index, one in enumerate(precisions)}
    session = replace(session, device=device, manifest=replace(session.manifest, tensors=tensors))
    assert pass_cost(session).longest == longest


def test_half_precision_does_not_speculate_unasked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that decodes with target ort on CUDA has half precision, whose checked guesses may change tokens."""
    lm = text_generator(fakes.language_model(tmp_path / "lm"))
    half = replace(lm.manifest, model=replace(lm.manifest.model, cache_dtype="float16"))
    monkeypatch.setattr(lm, "_loaded", replace(lm.session, device="cuda", manifest=half))
    assert lm.speculation_note == "checking guesses may change tokens: its activations are float16"
