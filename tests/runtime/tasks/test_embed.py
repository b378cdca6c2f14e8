"""Embeddings: pooling, normalization, and padding that does not change the result."""

from pathlib import Path

import numpy as np
import pytest
from intaglio.errors import PromptError, UsageError
from intaglio.runtime import Embedder, load
from intaglio.tests.runtime import fakes

TABLE = np.random.default_rng(0).normal(size=(fakes.VOCAB, fakes.HIDDEN)).astype(np.float32)
TEXTS = ["The stone is in the seal.", "a", "Where is it?"]


@pytest.fixture
def embedder(tmp_path: Path) -> Embedder:
    model = load(fakes.head(tmp_path / "embed", "feature-extraction", TABLE), task="feature-extraction")
    assert isinstance(model, Embedder)
    return model


def test_pooling_is_over_the_texts_own_tokens(embedder: Embedder) -> None:
    rows = [TABLE[embedder.tokenizer.encode(text)] for text in TEXTS]
    last = embedder(TEXTS, normalize=False)
    assert last.dtype == np.float32
    assert embedder.dimensions == last.shape[1]
    np.testing.assert_array_equal(last, [row[-1] for row in rows])
    mean = embedder(TEXTS, pooling="mean", normalize=False)
    np.testing.assert_allclose(mean, [row.mean(axis=0) for row in rows], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("pooling", ["last", "mean"])
def test_vectors_have_length_one_by_default(embedder: Embedder, pooling: str) -> None:
    raw, unit = embedder(TEXTS, pooling=pooling, normalize=False), embedder(TEXTS, pooling=pooling)  # type: ignore[arg-type]
    np.testing.assert_allclose(np.linalg.norm(unit, axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(unit, raw / np.linalg.norm(raw, axis=1, keepdims=True), rtol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 2, 50])
def test_the_batch_size_changes_nothing(embedder: Embedder, batch_size: int) -> None:
    np.testing.assert_allclose(embedder(TEXTS, batch_size=batch_size), [embedder(text)[0] for text in TEXTS])


def test_token_ids_are_taken_as_they_are(embedder: Embedder) -> None:
    ids = [embedder.tokenizer.encode(text) for text in TEXTS]
    np.testing.assert_array_equal(embedder(ids), embedder(TEXTS))
    np.testing.assert_array_equal(embedder(ids[0]), embedder(TEXTS[0]))
    assert [one.ids for one in embedder.encode("b", prompt="a")] == [embedder.tokenizer.encode("ab")]


def test_no_texts_and_no_direction(tmp_path: Path, embedder: Embedder) -> None:
    assert embedder([]).shape == (0, fakes.HIDDEN)
    zeros = load(fakes.head(tmp_path / "zeros", "feature-extraction", np.zeros_like(TABLE)), task="feature-extraction")
    assert not zeros("a").any()


def test_what_cannot_be_taken(embedder: Embedder) -> None:
    with pytest.raises(
        UsageError,
        match="unknown pooling 'median'; use one of 'last', 'mean', 'cls', 'max'",
    ):
        embedder("a", pooling="median")  # type: ignore[arg-type]
    with pytest.raises(PromptError, match="the text is empty"):
        embedder("")
    with pytest.raises(UsageError, match="a prompt is put before text, and token ids are given; leave the prompt out"):
        embedder([5], prompt="query: ")
