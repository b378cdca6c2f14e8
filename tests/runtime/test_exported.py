"""Tiny random checkpoints, exported, loaded, and compared with transformers on the same checkpoint."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from intaglio.exporter import export
from intaglio.runtime import Embedder, QuestionAnswerer, SequenceClassifier, TextGenerator, TokenClassifier, load
from intaglio.tests import tiny

# Either family and either target once in the quick run; the other pairs, and the heads' other three, in the whole one.
slow = pytest.mark.slow
ALL = [("qwen2", "ort"), ("exaone4", "standard"), ("qwen2", "standard"), ("exaone4", "ort")]
PAIRS = [*ALL[:2], *(pytest.param(*pair, marks=slow) for pair in ALL[2:])]
HEADS = [ALL[0], *(pytest.param(*pair, marks=slow) for pair in ALL[1:])]
TARGETS = ["ort", pytest.param("standard", marks=slow)]
PROMPTS = [[5, 6, 7], [9] * 30, [20, 30, 40, 50, 60, 2, 1], [11]]
TEXTS = ["The stone is in the seal.", "a", "Where is it? 你好", "every time the same impression", "a"]


pytestmark = pytest.mark.usefixtures("transformers_quietly")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("exported")


def make(place: Path, family: str, task: str, target: str, name: str = "plain", **options: Any) -> tuple[Path, Any]:
    """Return a checkpoint's folder and its loaded artifact, which are made once per module."""
    precision = options.pop("precision", "fp32")
    source = place / f"{family}-{task}-{name}"
    if not source.exists():
        tiny.write(source, tiny.config(family, task, **options), tokenizer=True)
    artifact = place / f"{source.name}-{target}-{precision}"
    if not artifact.exists():
        export(source, artifact, target=target, precision=precision)  # type: ignore[arg-type]
    return source, load(artifact, threads=2)


@cache
def theirs(kind: str, source: Path) -> Any:
    """Return transformers' model of a checkpoint."""
    return getattr(transformers, kind).from_pretrained(source, dtype=torch.float32).eval()


def their_tokens(source: Path, prompt: list[int], count: int) -> list[int]:
    """Return transformers' greedy tokens."""
    model = theirs("AutoModelForCausalLM", source)
    out = model.generate(
        torch.tensor([prompt]), max_new_tokens=count, do_sample=False, eos_token_id=None, pad_token_id=0
    )
    tokens: list[int] = out[0, len(prompt) :].tolist()
    return tokens


def assert_greedy(source: Path, prompt: list[int], tokens: Sequence[int]) -> None:
    """Check in one pass that every token is the argmax of transformers' logits after the tokens before it."""
    with torch.no_grad():
        logits = theirs("AutoModelForCausalLM", source)(torch.tensor([[*prompt, *tokens]])).logits[0]
    assert list(tokens) == logits.argmax(-1)[len(prompt) - 1 : -1].tolist()


@pytest.mark.parametrize(("family", "target"), PAIRS)
def test_greedy_tokens_equal_transformers(place: Path, family: str, target: str) -> None:
    source, lm = make(place, family, "text-generation", target)
    assert isinstance(lm, TextGenerator)
    results = lm.generate(PROMPTS, max_new_tokens=40, eos_token_id=[])
    for prompt, result in zip(PROMPTS, results, strict=True):
        assert len(result.token_ids) == 40
        assert_greedy(source, prompt, result.token_ids)
    assert list(results[0].token_ids[:8]) == their_tokens(source, PROMPTS[0], 8)


@pytest.mark.parametrize(("family", "target"), PAIRS)
def test_batches_chunks_and_growth_change_no_token(
    place: Path, family: str, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, lm = make(place, family, "text-generation", target)
    single = [lm.generate(prompt, max_new_tokens=60, eos_token_id=[]) for prompt in PROMPTS]
    assert lm.generate(PROMPTS, max_new_tokens=60, eos_token_id=[]) == single
    monkeypatch.setattr("intaglio.runtime.decoding.cache.InPlaceCache._may_reserve", lambda cache, limit: False)
    monkeypatch.setattr("intaglio.runtime.decoding.cache.STEP", 8)
    monkeypatch.setattr("intaglio.runtime.decoding.cache.HEADROOM", 1)
    monkeypatch.setattr("intaglio.runtime.decoding.prefill.PREFILL_CHUNK", 4)
    assert lm.generate(PROMPTS, max_new_tokens=60, eos_token_id=[]) == single


@pytest.mark.parametrize(("family", "target"), PAIRS)
def test_the_last_token_of_the_context_is_reached(place: Path, family: str, target: str) -> None:
    source, lm = make(place, family, "text-generation", target)
    prompt = [5, 9, 14] * 40
    result = lm.generate(prompt, max_new_tokens=100, eos_token_id=[])
    assert (len(result.token_ids), result.finish_reason) == (8, "length")
    assert_greedy(source, prompt, result.token_ids)


@pytest.mark.parametrize("target", TARGETS)
def test_frequencies_that_depend_on_the_length(place: Path, target: str) -> None:
    """The prompts are shorter and longer than the length at which the frequencies change: a batch would mix them."""
    rope = {"rope_type": "dynamic", "factor": 4.0, "original_max_position_embeddings": 32}
    source, lm = make(place, "qwen2", "text-generation", target, "dynamic", rope=rope)
    assert lm.manifest.model.length_dependent_rope
    prompts = [[5, 6, 7], [9, 8] * 20, [40] * 33]
    for prompt, result in zip(prompts, lm.generate(prompts, max_new_tokens=12, eos_token_id=[]), strict=True):
        assert result == lm.generate(prompt, max_new_tokens=12, eos_token_id=[])
        assert list(result.token_ids) == their_tokens(source, prompt, 12)


@slow
@pytest.mark.parametrize("target", ["ort", "standard"])
def test_fp16_runs_on_the_cpu(place: Path, target: str) -> None:
    source, lm = make(place, "qwen2", "text-generation", target, precision="fp16")
    assert lm.manifest.model.cache_dtype == "float16"
    single = [lm.generate(prompt, max_new_tokens=20, eos_token_id=[]) for prompt in PROMPTS]
    assert lm.generate(PROMPTS, max_new_tokens=20, eos_token_id=[]) == single
    agree = [
        mine == expected
        for prompt, result in zip(PROMPTS, single, strict=True)
        for mine, expected in zip(result.token_ids[:5], their_tokens(source, prompt, 5), strict=True)
    ]
    assert sum(agree) >= 16  # of 20: half precision may settle a near tie the other way


def their_outputs(source: Path, kind: str, tokenizer: Any, *texts: str) -> Any:
    """Return transformers' outputs for one text, or for a question and its context."""
    with torch.no_grad():
        return theirs(kind, source)(torch.tensor([tokenizer.backend.encode(*texts).ids]))


@pytest.mark.parametrize(("family", "target"), HEADS)
def test_classification_equals_transformers(place: Path, family: str, target: str) -> None:
    source, model = make(place, family, "text-classification", target)
    assert isinstance(model, SequenceClassifier)
    for text, result in zip(TEXTS, model(TEXTS, batch_size=4), strict=True):
        logits = their_outputs(source, "AutoModelForSequenceClassification", model.tokenizer, text).logits[0]
        np.testing.assert_allclose(list(result.scores.values()), logits.softmax(-1).numpy(), atol=1e-4)
        assert result.label == ("bad", "fair", "good")[int(logits.argmax())]


@pytest.mark.parametrize(("family", "target"), HEADS)
def test_tags_equal_transformers(place: Path, family: str, target: str) -> None:
    source, model = make(place, family, "token-classification", target)
    assert isinstance(model, TokenClassifier)
    for text, tags in zip(TEXTS, model(TEXTS, batch_size=4), strict=True):
        logits = their_outputs(source, "AutoModelForTokenClassification", model.tokenizer, text).logits[0]
        assert [tag.label for tag in tags] == [("bad", "fair", "good")[i] for i in logits.argmax(-1)]
        np.testing.assert_allclose([tag.score for tag in tags], logits.softmax(-1).amax(-1).numpy(), atol=1e-4)


@pytest.mark.parametrize(("family", "target"), HEADS)
def test_answers_equal_transformers_logits(place: Path, family: str, target: str) -> None:
    source, model = make(place, family, "question-answering", target)
    assert isinstance(model, QuestionAnswerer)
    question, context = "Where is the stone?", "The stone is in the seal, every time."
    outputs = their_outputs(source, "AutoModelForQuestionAnswering", model.tokenizer, question, context)
    encoding = model.tokenizer.backend.encode(question, context)
    first = encoding.sequence_ids.index(1)
    start, end = (logits[0, first:].softmax(-1).numpy() for logits in (outputs.start_logits, outputs.end_logits))
    joint = np.triu(np.outer(start, end))
    (answer,) = model(question, context, max_answer_length=1000)
    row, column = np.unravel_index(joint.argmax(), joint.shape)
    assert answer.score == pytest.approx(joint.max(), abs=1e-4)
    assert answer.text == context[encoding.offsets[first + row][0] : encoding.offsets[first + column][1]].strip()


@pytest.mark.parametrize(("family", "target"), HEADS)
def test_embeddings_equal_transformers(place: Path, family: str, target: str) -> None:
    source, model = make(place, family, "feature-extraction", target)
    assert isinstance(model, Embedder)
    last, mean = model(TEXTS, normalize=False), model(TEXTS, pooling="mean", normalize=False, batch_size=2)
    for index, text in enumerate(TEXTS):
        hidden = their_outputs(source, "AutoModel", model.tokenizer, text).last_hidden_state[0].numpy()
        np.testing.assert_allclose(last[index], hidden[-1], atol=1e-4)
        np.testing.assert_allclose(mean[index], hidden.mean(axis=0), atol=1e-4)
