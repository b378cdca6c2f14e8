"""Sequence classification: scores per problem, order, batches, and texts that cannot be taken."""

import math
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from intaglio.errors import ArtifactError, PromptError, UsageError
from intaglio.runtime import SequenceClassifier, load
from intaglio.runtime.tasks.classify import ScoreFunction, scores
from intaglio.tests.runtime import fakes
from tokenizers import Tokenizer, processors
from transformers import PreTrainedTokenizerFast, TextClassificationPipeline
from transformers.pipelines.text_classification import ClassificationFunction

TABLE = np.random.default_rng(0).normal(scale=0.05, size=(fakes.VOCAB, 3))
LABELS = ("bad", "fair", "good")
TEXTS = ["The stone is in the seal.", "a", "Where?", "every time the same impression", "a", "x" * 40]


def classifier(folder: Path, table: np.ndarray = TABLE, **options: object) -> SequenceClassifier:
    model = load(
        fakes.head(folder, "text-classification", table, **{"labels": LABELS, **options}), task="text-classification"
    )
    assert isinstance(model, SequenceClassifier)
    return model


def test_scores_are_the_softmax_of_the_logits_in_the_callers_order(tmp_path: Path) -> None:
    model = classifier(tmp_path / "cls")
    for text, result in zip(TEXTS, model(TEXTS, batch_size=4), strict=True):
        logits = TABLE[model.tokenizer.encode(text)].astype(np.float32).sum(axis=0)
        expected = np.exp(logits) / np.exp(logits).sum()
        assert 0.34 < expected.max() < 0.9999
        assert list(result.scores) == list(LABELS)
        np.testing.assert_allclose(list(result.scores.values()), expected, rtol=1e-4)
        assert result.label == LABELS[int(expected.argmax())]
        assert result.score == max(result.scores.values())


@pytest.mark.parametrize("batch_size", [1, 2, 3, 100])
def test_the_batch_size_changes_nothing(tmp_path: Path, batch_size: int) -> None:
    model = classifier(tmp_path / "cls")
    for one, many in zip([model(text)[0] for text in TEXTS], model(TEXTS, batch_size=batch_size), strict=True):
        assert one.label == many.label
        np.testing.assert_allclose(list(one.scores.values()), list(many.scores.values()), rtol=1e-5)
    assert model(TEXTS)[1] == model(TEXTS)[4]
    assert model([]) == []


def test_token_ids_are_taken_as_they_are(tmp_path: Path) -> None:
    model = classifier(tmp_path / "cls")
    ids = [model.tokenizer.encode(text) for text in TEXTS]
    assert model(ids) == model(TEXTS)
    mixed: list[Any] = [*ids[:2], *TEXTS[2:]]
    assert model(mixed) == model(TEXTS)
    assert model(ids[0]) == model(TEXTS[0])
    assert [one.ids for one in model.encode(TEXTS)] == ids
    assert model([5] * 600, truncation=True) == model([5] * 512)


def test_batches_are_made_of_texts_of_similar_lengths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = classifier(tmp_path / "cls")
    shapes = watch(model, monkeypatch)
    model(["x" * 40, "a", "x" * 39, "b"], batch_size=2)
    assert shapes == [(2, 1), (2, 40)]


def test_without_a_pad_token_each_text_is_a_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = classifier(tmp_path / "cls", pad_token_id=None)
    shapes = watch(model, monkeypatch)
    model(["a", "bc", "d"])
    assert sorted(shapes) == [(1, 1), (1, 1), (1, 2)]


def watch(model: SequenceClassifier, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Record the shapes of the batches that are run from now on."""
    shapes: list[tuple[int, ...]] = []
    session = model.session
    real = type(session).run

    def run(self: object, feeds: dict[str, np.ndarray], outputs: tuple[str, ...]) -> list[np.ndarray]:
        shapes.append(feeds["input_ids"].shape)
        return real(session, feeds, outputs)

    monkeypatch.setattr(type(session), "run", run)
    return shapes


@pytest.mark.parametrize("problem", ["regression", "single_label_classification", "multi_label_classification", None])
@pytest.mark.parametrize("count", [1, 3])
def test_scores_equal_those_of_transformers_pipeline(tmp_path: Path, problem: str | None, count: int) -> None:
    labels = LABELS[:count]
    model = classifier(tmp_path / "cls", TABLE[:, :count], problem_type=problem, labels=labels)
    text = TEXTS[0]
    logits = TABLE[model.tokenizer.encode(text), :count].astype(np.float32).sum(axis=0)
    pipeline: Any = object.__new__(TextClassificationPipeline)
    config = SimpleNamespace(problem_type=problem, num_labels=count, id2label=dict(enumerate(labels)))
    pipeline.model = SimpleNamespace(config=config)
    functions: tuple[ScoreFunction | None, ...] = (None, "none", "sigmoid", "softmax")
    for function, top_k in product(functions, (None, 1, 2, 9)):
        chosen = function and ClassificationFunction[function.upper()]
        theirs: Any = pipeline.postprocess({"logits": torch.tensor(logits[None])}, chosen, top_k, _legacy=False)
        (ours,) = model(text, function_to_apply=function, top_k=top_k)
        expected = {one["label"]: one["score"] for one in theirs}
        assert ours.scores == pytest.approx(expected, rel=1e-4)
        assert ours.label == theirs[0]["label"]
        assert ours.score == pytest.approx(theirs[0]["score"], rel=1e-4)
        assert list(ours.scores) == list(labels if top_k is None else expected)


def test_a_sigmoid_of_large_logits_is_finite() -> None:
    assert scores(np.array([-1000.0, 1000.0]), "sigmoid").tolist() == [0.0, 1.0]


def test_a_model_of_one_label_tells_texts_apart(tmp_path: Path) -> None:
    """A softmax over one logit would be 1.0 for every text."""
    options = {"problem_type": "single_label_classification", "labels": ("relevant",)}
    model = classifier(tmp_path / "cls", TABLE[:, :1], **options)
    raw = [float(TABLE[model.tokenizer.encode(text), 0].astype(np.float32).sum()) for text in TEXTS]
    np.testing.assert_allclose([one.score for one in model(TEXTS, function_to_apply="none")], raw, rtol=1e-4)
    np.testing.assert_allclose([one.score for one in model(TEXTS)], 1 / (1 + np.exp(-np.array(raw))), rtol=1e-4)


@pytest.mark.parametrize("template", [None, "[CLS] $A [SEP] $B:1 [SEP]:1"])
def test_pairs_are_encoded_as_transformers_encodes_them(tmp_path: Path, template: str | None) -> None:
    folder = fakes.head(tmp_path / "cls", "text-classification", TABLE, labels=LABELS, context_length=40)
    backend = Tokenizer.from_file(str(folder / "tokenizer.json"))
    if template:
        special = [("[CLS]", 1), ("[SEP]", 2)]
        backend.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", template, special)
    make: Any = PreTrainedTokenizerFast
    theirs = make(tokenizer_object=backend)
    model = load(folder, task="text-classification")
    model.tokenizer.backend.post_processor = backend.post_processor
    second = ["the stone", "x" * 30, "y" * 60, "", "z" * 15 + " seal"]
    for first in ("a question", "q" * 25, "q" * 60):
        for text, ours in zip(second, model(first, text_pairs=second, truncation=True), strict=True):
            (ids,) = theirs([first], [text], truncation="longest_first", max_length=40)["input_ids"]
            logits = TABLE[ids].astype(np.float32).sum(axis=0)
            expected = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
            np.testing.assert_allclose(list(ours.scores.values()), expected, rtol=1e-4)


def test_one_text_goes_with_many(tmp_path: Path) -> None:
    model = classifier(tmp_path / "cls")
    assert model("a", text_pairs=["b", "c"]) == model(["a", "a"], text_pairs=["b", "c"])
    assert model(["a", "c"], text_pairs="b") == model(["a", "c"], text_pairs=["b", "b"])
    assert model("a", text_pairs="b")[0].scores == pytest.approx(model("ab")[0].scores)


def test_labels_that_the_checkpoint_does_not_name(tmp_path: Path) -> None:
    assert list(classifier(tmp_path / "cls", labels=())("a")[0].scores) == ["LABEL_0", "LABEL_1", "LABEL_2"]


def test_texts_that_cannot_be_taken(tmp_path: Path) -> None:
    model = classifier(tmp_path / "cls", context_length=16)
    with pytest.raises(PromptError, match="text 1 is empty: it has no tokens; give at least one word"):
        model(["a", ""])
    with pytest.raises(PromptError, match="the text is empty"):
        model("")
    with pytest.raises(PromptError) as error:
        model("x" * 17)
    assert str(error.value) == (
        "the text has 17 tokens, the model's context is 16; shorten it, or cut it off with truncation=True"
    )
    with pytest.raises(PromptError, match="text 1 must be text or a flat list of whole numbers"):
        model(["a", 5])  # type: ignore[arg-type]
    with pytest.raises(PromptError, match="the text is list; give text"):
        model([[5]], text_pairs=["a"])
    with pytest.raises(PromptError, match="the text: token id 288 is out of range"):
        model([5, 288])
    with pytest.raises(PromptError, match="the text has 17 tokens, the model's context is 16"):
        model([[5] * 17])
    with pytest.raises(UsageError, match="batch_size must be at least 1, not 0"):
        model("a", batch_size=0)
    with pytest.raises(UsageError, match="top_k must be at least 1, not 0"):
        model("a", top_k=0)
    with pytest.raises(UsageError, match="function_to_apply is 'exp'; choose one of 'none', 'sigmoid', 'softmax'"):
        model("a", function_to_apply="exp")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="there are 2 texts and 3 text_pairs; give one for each text, or one"):
        model(["a", "b"], text_pairs=["a", "b", "c"])
    with pytest.raises(UsageError, match="batch_size must be at least 1, not -3"):
        classifier(tmp_path / "unpadded", pad_token_id=None)("a", batch_size=-3)


def test_truncation_keeps_the_beginning(tmp_path: Path) -> None:
    model = classifier(tmp_path / "cls", context_length=16)
    cut, whole = model(["x" * 16 + "good", "x" * 16], truncation=True)
    assert math.isclose(cut.score, whole.score, rel_tol=1e-6)


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    model = classifier(tmp_path / "cls", vocab_size=50)
    with pytest.raises(PromptError, match=r"the text: token id \d+ is out of range, the model's ids are 0 to 49"):
        model("zzz")


def test_labels_that_do_not_fit_the_graph_are_refused(tmp_path: Path) -> None:
    for labels in (("bad", "good"), (*LABELS, "best")):
        model = classifier(tmp_path / str(len(labels)), labels=labels)
        count = len(labels)
        with pytest.raises(
            ArtifactError, match=rf"^the manifest has {count} labels and the model 3 outputs; export the"
        ):
            model("a")
