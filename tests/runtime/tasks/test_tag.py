"""Token classification: a tag per token with character offsets, and entities joined from them."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from intaglio.errors import PromptError, UsageError
from intaglio.runtime import Tag, TokenClassifier, load
from intaglio.runtime.tasks.entities import Aggregation, entities, without_space
from intaglio.runtime.tasks.padded import encode_texts
from intaglio.tests.runtime import fakes
from tokenizers import Tokenizer, processors
from transformers import AutoTokenizer, TokenClassificationPipeline
from transformers.pipelines.token_classification import AggregationStrategy

LABELS = ("O", "B-PER", "I-PER", "LOC")
TABLE = np.random.default_rng(0).normal(size=(fakes.VOCAB, 4))


@pytest.fixture
def tagger(tmp_path: Path) -> TokenClassifier:
    model = load(
        fakes.head(tmp_path / "tag", "token-classification", TABLE, labels=LABELS), task="token-classification"
    )
    assert isinstance(model, TokenClassifier)
    return model


@pytest.mark.parametrize("batch_size", [1, 2, 16])
def test_every_token_has_a_tag(tagger: TokenClassifier, batch_size: int) -> None:
    texts = ["The stone is in the seal.", "a", "Where is it? 你好"]
    for text, tags in zip(texts, tagger(texts, batch_size=batch_size), strict=True):
        ids = tagger.tokenizer.encode(text)
        assert len(tags) == len(ids)
        for token, tag in zip(ids, tags, strict=True):
            weights = np.exp(TABLE[token])
            assert tag.label == LABELS[int(TABLE[token].argmax())]
            np.testing.assert_allclose(tag.score, weights.max() / weights.sum(), rtol=1e-5)
            assert tag.text == text[tag.start : tag.end]


def test_offsets_are_characters_without_the_leading_space(tagger: TokenClassifier) -> None:
    text = " the the 你 the"
    tags = tagger(text)[0]
    words = {(tag.text, tag.start, tag.end) for tag in tags if tag.text == "the"}
    assert words == {("the", 1, 4), ("the", 5, 8), ("the", 11, 14)}
    # The three bytes of 你 are tokens of their own, each of which covers the character.
    assert [(tag.start, tag.end) for tag in tags if tag.text == "你"] == [(9, 10)] * 3


def test_tokens_that_the_template_adds_have_no_tag(tmp_path: Path) -> None:
    folder = fakes.head(tmp_path / "tag", "token-classification", TABLE, labels=LABELS)
    backend = Tokenizer.from_file(str(folder / "tokenizer.json"))
    backend.post_processor = processors.TemplateProcessing("<|im_start|> $A", None, [("<|im_start|>", 1)])
    tagger = load(folder, task="token-classification")
    tagger.tokenizer.backend.post_processor = backend.post_processor
    ids = tagger.tokenizer.encode("a b")
    assert ids[0] == 1
    assert [tag.label for tag in tagger("a b")[0]] == [LABELS[int(TABLE[token].argmax())] for token in ids[1:]]


def tags(text: str, *labels: str) -> list[Tag]:
    """One tag per word or space of the text, with scores 0.1, 0.2, ..."""
    found, start = [], 0
    for index, (piece, label) in enumerate(zip(text.split("|"), labels, strict=True)):
        first, last = without_space(text.replace("|", ""), start, start + len(piece))
        found.append(Tag(label, (index + 1) / 10, text.replace("|", "")[first:last], first, last))
        start += len(piece)
    return found


def joined(text: str, *labels: str) -> list[tuple[str, str]]:
    found = entities(text.replace("|", ""), tags(text, *labels))
    assert all(text.replace("|", "")[entity.start : entity.end] == entity.text for entity in found)
    return [(entity.label, entity.text) for entity in found]


def test_entities_are_runs_of_one_label() -> None:
    assert joined("Ada| Love|lace| met| Bob", "B-PER", "I-PER", "I-PER", "O", "B-PER") == [
        ("PER", "Ada Lovelace"),
        ("PER", "Bob"),
    ]
    assert joined("Ada| Bob", "B-PER", "B-PER") == [("PER", "Ada"), ("PER", "Bob")]
    assert joined("Ada| Rome", "B-PER", "I-LOC") == [("PER", "Ada"), ("LOC", "Rome")]
    assert joined("New| York| is| in| New| York", "LOC", "LOC", "O", "O", "LOC", "LOC") == [
        ("LOC", "New York"),
        ("LOC", "New York"),
    ]
    assert joined("Ada| x| Ada", "I-PER", "O", "I-PER") == [("PER", "Ada"), ("PER", "Ada")]
    assert joined("a| b", "O", "O") == []


def test_white_space_belongs_to_no_entity_and_separates_none() -> None:
    assert joined("New|\n|York| ", "LOC", "O", "LOC", "LOC") == [("LOC", "New\nYork")]


def test_an_entitys_score_is_the_mean_of_its_tokens() -> None:
    (entity,) = entities("New York", tags("New| York", "LOC", "LOC"))
    assert entity.score == pytest.approx(0.15)


def test_aggregation_equals_joining_the_tags(tagger: TokenClassifier) -> None:
    texts = ["The stone is in the seal.", "Where is it?"]
    plain = tagger(texts)
    assert tagger(texts, aggregate=True) == [entities(text, found) for text, found in zip(texts, plain, strict=True)]
    assert any(found != tags for found, tags in zip(tagger(texts, aggregate=True), plain, strict=True))


def test_texts_that_cannot_be_taken(tagger: TokenClassifier) -> None:
    with pytest.raises(PromptError, match="text 1 is empty"):
        tagger(["a", ""])
    with pytest.raises(PromptError, match="the text has 513 tokens, the model's context is 512"):
        tagger("x" * 513)
    assert len(tagger("x" * 513, truncation=True)[0]) == 512


NER = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC", "MISC-X")
NER_TABLE = np.random.default_rng(4).normal(size=(fakes.VOCAB, 6)) * 2
NER_TEXTS = [
    "Ada Lovelace lived in London, and the engraver's stone was there.",
    " the  the\n\nthe\tstone \u00a0x",
    "a",
    "你好 the<|endoftext|>the stone<|im_end|>",
    "Where is-it?",
]


@pytest.mark.filterwarnings("ignore:Tokenizer does not support real words")
@pytest.mark.parametrize("trim", [None, False, True], ids=["no template", "spaces", "trimmed"])
@pytest.mark.parametrize("strategy", ["simple", "first", "average", "max"])
def test_strategies_equal_those_of_transformers_pipeline(
    tmp_path: Path, strategy: Aggregation, trim: bool | None
) -> None:
    folder = fakes.head(tmp_path / "tag", "token-classification", NER_TABLE, labels=NER)
    tagger = load(folder, task="token-classification")
    theirs = AutoTokenizer.from_pretrained(folder, unk_token="<|endoftext|>")
    assert tagger.tokenizer.unk_token_id is None
    tagger.tokenizer = replace(tagger.tokenizer, unk_token_id=theirs.unk_token_id)
    if trim is not None:
        theirs.backend_tokenizer.post_processor = processors.ByteLevel(trim_offsets=trim)
        tagger.tokenizer.backend.post_processor = processors.ByteLevel(trim_offsets=trim)
    pipeline: Any = object.__new__(TokenClassificationPipeline)
    pipeline.tokenizer = theirs
    config = SimpleNamespace(id2label=dict(enumerate(NER)))
    pipeline.model = SimpleNamespace(config=config)
    for text, ours in zip(NER_TEXTS, tagger(NER_TEXTS, aggregate=strategy), strict=True):
        encoded = theirs(text, return_special_tokens_mask=True, return_offsets_mapping=True, return_tensors="pt")
        logits = torch.tensor(NER_TABLE[encoded["input_ids"][0].tolist()].astype(np.float32)[None])
        output: Any = {**encoded, "logits": logits, "sentence": text, "is_last": True}
        found: Any = pipeline.postprocess([output], AggregationStrategy[strategy.upper()])
        spans = [without_space(text, one["start"], one["end"]) for one in found]
        assert [(tag.label, tag.start, tag.end) for tag in ours] == [
            (one["entity_group"], *span) for one, span in zip(found, spans, strict=True)
        ]
        assert [tag.score for tag in ours] == pytest.approx([one["score"] for one in found], rel=1e-4)
        assert all(tag.text == text[tag.start : tag.end] for tag in ours)


def test_none_is_a_tag_for_each_token(tagger: TokenClassifier) -> None:
    assert tagger("The stone", aggregate="none") == tagger("The stone")
    with pytest.raises(UsageError, match="aggregate is 'last'; choose True, False or one of 'none', 'simple', 'first'"):
        tagger("The stone", aggregate="last")  # type: ignore[arg-type]


def test_truncation_keeps_the_tokens_of_the_template(tmp_path: Path) -> None:
    folder = fakes.head(tmp_path / "tag", "token-classification", TABLE, labels=LABELS, context_length=16)
    tagger = load(folder, task="token-classification")
    template = processors.TemplateProcessing(
        "<|im_start|> $A <|im_end|>", None, [("<|im_start|>", 1), ("<|im_end|>", 2)]
    )
    tagger.tokenizer.backend.post_processor = template
    (sequence,) = encode_texts(["x" * 40], tagger.tokenizer, tagger.manifest.model, truncation=True)
    assert (len(sequence), sequence.ids[0], sequence.ids[-1]) == (16, 1, 2)
    assert len(tagger("x" * 40, truncation=True)[0]) == 14
    with pytest.raises(PromptError, match="the text has 42 tokens, the model's context is 16"):
        tagger("x" * 40)
