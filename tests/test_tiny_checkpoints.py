"""The whole way on the trained tiny checkpoints: checkpoint, artifact, text and labels, against transformers.

Trained weights show what random ones hide: peaked attention, large activations, near-certain tokens.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from intaglio.artifact import Target
from intaglio.exporter import export
from intaglio.runtime import SequenceClassifier, TextGenerator, load
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

CHECKPOINTS = Path(__file__).parent / "checkpoints"
PROMPTS = ["The history of the city", "In 1942, the ship", "The album was", "A"]
NEW_TOKENS = 96  # past the window of 64, so that decoding leaves tokens behind; nothing ends the text earlier
GREEDY = {"do_sample": False, "repetition_penalty": 1.0, "temperature": None, "top_p": None, "top_k": None}
TEXTS = [
    "a delightful film",
    "a waste of time",
    "the acting is superb but the plot is thin",
    "one of the worst movies of the year , and that says a lot .",
    "warm , funny and moving",
]


@pytest.mark.parametrize(
    ("name", "target"),
    [
        *((name, target) for name in ("tiny-qwen2", "tiny-exaone4") for target in ("ort", "standard")),
        ("tiny-qwen2-moe", "ort"),
        pytest.param("tiny-qwen2-moe", "standard", marks=pytest.mark.slow),
    ],
)
def test_text_equals_transformers(tmp_path: Path, name: str, target: Target) -> None:
    folder = CHECKPOINTS / name
    export(folder, tmp_path / "out", target=target)
    lm = load(tmp_path / "out", threads=1)
    assert isinstance(lm, TextGenerator)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model.generation_config.eos_token_id = None
    options: dict[str, Any] = {
        "max_new_tokens": NEW_TOKENS,
        "temperature": 0.0,
        "repetition_penalty": 1.0,
        "eos_token_id": [],
    }
    for prompt, found in zip(PROMPTS, lm.generate(PROMPTS, **options), strict=True):
        inputs = tokenizer(prompt, return_tensors="pt")
        expected = model.generate(**inputs, max_new_tokens=NEW_TOKENS, **GREEDY)[0, inputs["input_ids"].shape[1] :]
        assert list(found.token_ids) == expected.tolist()
        assert len(found.token_ids) == NEW_TOKENS
        assert found.text == tokenizer.decode(expected, skip_special_tokens=True)
        assert found == lm.generate(prompt, **options)
        assert found.text == "".join(lm.stream(prompt, **options))


@pytest.mark.parametrize("target", ["ort", "standard"])
def test_labels_equal_transformers(tmp_path: Path, target: Target) -> None:
    folder = CHECKPOINTS / "tiny-qwen2-sst2"
    export(folder, tmp_path / "out", target=target)
    classify = load(tmp_path / "out", threads=1)
    assert isinstance(classify, SequenceClassifier)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    for text, found in zip(TEXTS, classify(TEXTS), strict=True):
        with torch.inference_mode():
            scores = model(**tokenizer(text, return_tensors="pt")).logits.softmax(-1)[0]
        expected = {model.config.id2label[i]: float(score) for i, score in enumerate(scores)}
        assert found.label == max(expected, key=expected.__getitem__)
        assert found.scores == pytest.approx(expected, abs=1e-4)
    assert {found.label for found in classify(TEXTS[:2])} == {"positive", "negative"}


def test_every_checkpoint_is_small_enough_to_be_in_a_repository() -> None:
    for folder in CHECKPOINTS.iterdir():
        assert sum(path.stat().st_size for path in folder.glob("*")) < 8_000_000
