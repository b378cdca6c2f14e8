"""Every way to generate with a real, trained model, against transformers: 20 prompts, 128 greedy tokens each, fp32."""

from typing import Any

import pytest
import torch
from intaglio.exporter import export
from intaglio.runtime import Generation, TextGenerator
from intaglio.tests.real_model import FOLDER, needs_real_model
from intaglio.tests.runtime.fakes import text_generator
from transformers import AutoModelForCausalLM

pytestmark = needs_real_model("model.safetensors")
CODE = """def mean(values):
    total = 0
    for value in values:
        total += value
    return total / len(values)
"""
PROMPTS = [
    "The capital of France is",
    "def quicksort(values):",
    "In the year 1912, the ship",
    "<|im_start|>user\nWhy is the sky blue?<|im_end|>\n<|im_start|>assistant\n",
    "Water boils at",
    "SELECT name, count(*) FROM",
    "서울은 대한민국의",
    "import numpy as np\n\n\ndef softmax(x):\n",
    f"<|im_start|>user\nRepeat this code:\n{CODE}<|im_end|>\n<|im_start|>assistant\n{CODE[:20]}",
    "Once upon a time, there was a",
    "1, 2, 3, 4, 5,",
    "The three primary colours are",
    "<|im_start|>user\nTranslate to German: Good morning.<|im_end|>\n<|im_start|>assistant\n",
    "Dear Sir or Madam,\n\nI am writing to",
    "The theory of evolution",
    '{"name": "Anna", "age": 31}\n{"name": "Ben", "age":',
    "中国的首都是",
    "To bake bread, you need",
    "#include <stdio.h>\n\nint main(",
    f"{CODE}\n\ndef median(values):\n",
]
GREEDY: dict[str, Any] = {"max_new_tokens": 128, "temperature": 0.0, "repetition_penalty": 1.0}


@pytest.fixture(scope="module")
def lm(tmp_path_factory: pytest.TempPathFactory) -> TextGenerator:
    out = tmp_path_factory.mktemp("real") / "out"
    export(FOLDER, out)
    return text_generator(out)


@pytest.fixture(scope="module")
def alone(lm: TextGenerator) -> list[Generation]:
    return [lm.generate(prompt, **GREEDY, speculate=False) for prompt in PROMPTS]


def test_tokens_are_transformers_greedy_ones(alone: list[Generation]) -> None:
    """Each token is the argmax after the tokens before it, which one pass per prompt checks."""
    model = AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32).eval()  # type: ignore[no-untyped-call]
    for result in alone:
        text = [*result.prompt_token_ids, *result.token_ids]
        with torch.no_grad():
            logits = model(torch.tensor([text])).logits[0, len(result.prompt_token_ids) - 1 : -1]
        assert list(result.token_ids) == logits.argmax(-1).tolist(), result.text
    assert sum(len(result.token_ids) for result in alone) > 1500


def test_a_batch_gives_the_same(lm: TextGenerator, alone: list[Generation]) -> None:
    assert lm.generate(PROMPTS, **GREEDY, batch_size=8) == alone


def test_guesses_give_the_same(lm: TextGenerator, alone: list[Generation]) -> None:
    assert [lm.generate(prompt, **GREEDY, speculate=True) for prompt in PROMPTS] == alone


def test_a_conversation_gives_the_same(lm: TextGenerator, alone: list[Generation]) -> None:
    """Generate half of each answer, then the rest with that half in the cache."""
    conversation = lm.conversation()
    for result in alone[:8]:
        prompt, tokens = list(result.prompt_token_ids), list(result.token_ids)
        half = len(tokens) // 2
        first = conversation.generate(prompt, **dict(GREEDY, max_new_tokens=max(1, half)))
        assert list(first.token_ids) == tokens[: max(1, half)]
        rest = conversation.generate(prompt + tokens[:half], **dict(GREEDY, max_new_tokens=len(tokens) - half))
        assert conversation.reused == len(prompt) + half - 1
        assert list(rest.token_ids) == tokens[half:]


def test_short_chunks_give_the_same(
    lm: TextGenerator, alone: list[Generation], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("intaglio.runtime.decoding.prefill.PREFILL_CHUNK", 7)
    few: dict[str, Any] = dict(GREEDY, max_new_tokens=24)
    for prompt, result in zip(PROMPTS, alone, strict=True):
        assert lm.generate(prompt, **few).token_ids == result.token_ids[:24]
