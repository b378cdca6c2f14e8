"""Sequence classification: scores per problem, order, batches, and texts that cannot be taken."""

import math
from pathlib import Path

import numpy as np
import pytest
from intaglio.errors import PromptError, UsageError
from intaglio.runtime import Classification, SequenceClassifier, load
from intaglio.runtime.tasks.classify import scores
from intaglio.tests.runtime import fakes

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


def test_the_problem_decides_what_scores_are() -> None:
    logits = np.array([2.0, -1.0, 0.5])
    single = np.exp(logits) / np.exp(logits).sum()
    np.testing.assert_allclose(scores(logits, "single_label_classification"), single)
    np.testing.assert_allclose(scores(logits, None), single)
    np.testing.assert_allclose(scores(logits, "multi_label_classification"), 1 / (1 + np.exp(-logits)))
    assert scores(logits, "regression").tolist() == logits.tolist()
    assert scores(np.array([3.5]), None).tolist() == [3.5]
    assert scores(np.array([-1000.0, 1000.0]), "multi_label_classification").tolist() == [0.0, 1.0]


def test_a_regression_reports_its_raw_value(tmp_path: Path) -> None:
    model = classifier(tmp_path / "cls", TABLE[:, :1], problem_type="regression", labels=("rating",))
    value = float(TABLE[model.tokenizer.encode("a"), 0].astype(np.float32).sum())
    (result,) = model("a")
    assert result == Classification("rating", result.score, {"rating": result.score})
    assert result.score == pytest.approx(value)


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
    with pytest.raises(PromptError, match="text 0 is int; give text"):
        model([5, "a"])  # type: ignore[list-item]
    with pytest.raises(UsageError, match="batch_size must be at least 1, not 0"):
        model("a", batch_size=0)
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
