"""Every way to generate, on exported checkpoints of Qwen2 and EXAONE 4.0, against transformers: greedy tokens in fp32.

The texts go far beyond the sliding windows and their slack; tied and untied heads.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from intaglio.exporter import export
from intaglio.runtime import Generation, TextGenerator
from intaglio.runtime.decoding.cache import InPlaceCache
from intaglio.tests import tiny
from intaglio.tests.runtime.fakes import text_generator

COUNT = 60
PROMPTS = [[5, 6, 7], [9] * 30, [20, 30, 40, 50, 60, 2, 1] * 3, [11], list(range(3, 120)), [8, 9] * 40]
KINDS: dict[str, dict[str, Any]] = {
    "exaone4": {"family": "exaone4"},
    "qwen2 sliding": {"family": "qwen2", "use_sliding_window": True, "tie_word_embeddings": True},
    "exaone4 tied": {"family": "exaone4", "tie_word_embeddings": True},
    "qwen2": {"family": "qwen2"},
    "exaone4 standard": {"family": "exaone4", "target": "standard"},
}
QUICK = ("exaone4", "qwen2 sliding")
Check = Callable[[Sequence[int], Sequence[int]], None]


pytestmark = pytest.mark.usefixtures("transformers_quietly")


@pytest.fixture(
    scope="module", params=[kind if kind in QUICK else pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS]
)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[TextGenerator, Check]:
    """Return a loaded artifact, and a check that tokens are transformers' greedy ones."""
    options = dict(KINDS[request.param])
    family, target = options.pop("family"), options.pop("target", "ort")
    place: Path = tmp_path_factory.mktemp("engine")
    tiny.write(place / "source", tiny.config(family, max_position_embeddings=256, **options), tokenizer=True)
    export(place / "source", place / "out", target=target)
    lm = text_generator(place / "out", threads=1)
    assert lm.session.windowed == (target == "ort" and request.param != "qwen2")
    model = transformers.AutoModelForCausalLM.from_pretrained(place / "source", dtype=torch.float32).eval()  # type: ignore[no-untyped-call]

    def check(prompt: Sequence[int], tokens: Sequence[int]) -> None:
        """Check in one pass that each token is the argmax after the tokens before it."""
        with torch.no_grad():
            logits = model(torch.tensor([[*prompt, *tokens]])).logits[0, len(prompt) - 1 : -1]
        assert list(tokens) == logits.argmax(-1).tolist()

    return lm, check


@pytest.fixture(params=[False, True], ids=["roomy", "tight"])
def _room(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run with the default settings, and with short chunks, little slack and buffers that grow."""
    if request.param:
        monkeypatch.setattr(InPlaceCache, "_may_reserve", lambda cache, limit: False)
        monkeypatch.setattr("intaglio.runtime.decoding.cache.STEP", 8)
        monkeypatch.setattr("intaglio.runtime.decoding.cache.HEADROOM", 1)
        monkeypatch.setattr("intaglio.runtime.decoding.prefill.PREFILL_CHUNK", 5)
        monkeypatch.setattr("intaglio.runtime.graph.sliding.BLOCK", 5)
        monkeypatch.setattr("intaglio.runtime.decoding.in_place.MASK_STEP", 8)


@pytest.mark.usefixtures("_room")
class TestTokensAreTransformers:
    def test_alone(self, made: tuple[TextGenerator, Check]) -> None:
        lm, check = made
        for prompt in PROMPTS:
            check(prompt, lm.generate(prompt, max_new_tokens=COUNT, eos_token_id=[], speculate=False).token_ids)

    def test_in_batches(self, made: tuple[TextGenerator, Check]) -> None:
        lm, check = made
        for size in (2, 8):
            results = lm.generate(PROMPTS, max_new_tokens=COUNT, eos_token_id=[], batch_size=size)
            for prompt, result in zip(PROMPTS, results, strict=True):
                check(prompt, result.token_ids)

    def test_with_guesses(self, made: tuple[TextGenerator, Check]) -> None:
        lm, check = made
        draft: dict[str, Any] = {} if lm.manifest.target == "standard" else {"draft": lm}
        for prompt in PROMPTS:
            for options in ({}, draft):
                check(prompt, lm.generate(prompt, max_new_tokens=COUNT, eos_token_id=[], **options).token_ids)

    def test_in_a_conversation(self, made: tuple[TextGenerator, Check]) -> None:
        lm, check = made
        history: list[int] = [5, 6, 7]
        with lm.conversation() as conversation:
            for turn in range(9):
                result = conversation.generate(history, max_new_tokens=25, eos_token_id=[])
                check(history, result.token_ids)
                history = [*history, *result.token_ids, 40 + turn]
                if turn % 3 == 2:
                    history = [*history[: len(history) // 2], 77]

    def test_with_requests_that_come_and_go(self, made: tuple[TextGenerator, Check]) -> None:
        lm, check = made
        random = np.random.default_rng(0)
        prompts = [random.integers(3, 288, random.integers(1, 60)).tolist() for _ in range(10)]
        with lm.scheduler(slots=3) as scheduler:
            numbers: dict[int, list[int]] = {}
            results: dict[int, Generation] = {}
            for prompt in prompts:
                numbers[scheduler.submit(prompt, max_new_tokens=int(random.integers(1, 50)), eos_token_id=[])] = prompt
                for _ in range(random.integers(0, 20)):
                    results |= {event.request: event.result for event in scheduler.step() if event.result}
            while scheduler.busy:
                results |= {event.request: event.result for event in scheduler.step() if event.result}
        assert set(results) == set(numbers)
        for number, prompt in numbers.items():
            check(prompt, results[number].token_ids)
