"""The whole way on a real, trained model: checkpoint, artifact, text, against transformers."""

from typing import Any

import pytest
import torch
from intaglio.exporter import export
from intaglio.runtime import TextGenerator, load
from intaglio.tests.real_model import FOLDER, needs_real_model
from transformers import AutoModelForCausalLM, AutoTokenizer

pytestmark = needs_real_model("model.safetensors")
PROMPTS = [
    "The capital of France is",
    "def quicksort(values):",
    "In the year 1912, the ship",
    "<|im_start|>user\nWhy is the sky blue?<|im_end|>\n<|im_start|>assistant\n",
    "Water boils at",
    "SELECT name, count(*) FROM",
    "서울은 대한민국의",
    "import numpy as np\n\n\ndef softmax(x):\n",
]


@pytest.fixture(scope="module")
def expected() -> list[list[int]]:
    """Return transformers' 64 greedy tokens for each prompt."""
    tokenizer = AutoTokenizer.from_pretrained(FOLDER)
    model: Any = AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32)
    greedy = {"do_sample": False, "repetition_penalty": 1.0, "temperature": None, "top_p": None, "top_k": None}
    found = []
    for prompt in PROMPTS:
        inputs = tokenizer(prompt, return_tensors="pt")
        output = model.generate(**inputs, max_new_tokens=64, **greedy)
        found.append(output[0, inputs["input_ids"].shape[1] :].tolist())
    return found


@pytest.fixture(scope="module", params=["ort", "standard"])
def generator(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TextGenerator:
    out = tmp_path_factory.mktemp("real") / "out"
    export(FOLDER, out, target=request.param)
    loaded = load(out)
    assert isinstance(loaded, TextGenerator)
    return loaded


def test_64_greedy_tokens_of_8_prompts_equal_transformers(generator: TextGenerator, expected: list[list[int]]) -> None:
    one_by_one = [
        generator.generate(prompt, max_new_tokens=64, temperature=0.0, repetition_penalty=1.0) for prompt in PROMPTS
    ]
    assert [list(generation.token_ids) for generation in one_by_one] == expected
    together = generator.generate(PROMPTS, max_new_tokens=64, temperature=0.0, repetition_penalty=1.0)
    assert [list(generation.token_ids) for generation in together] == expected
