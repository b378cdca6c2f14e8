"""Tasks over rows: the results of the library, in columns, and a row that cannot be used beside the others."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from intaglio import load
from intaglio.errors import UsageError
from intaglio.serving.batch.rows import plain
from intaglio.serving.batch.tasks import Answer, Chat, Classify, Embed, Generate, Tag

ONE: Any = {"threads": 1}


def test_texts_are_continued_as_by_the_library(artifacts: dict[str, Path]) -> None:
    prompts: list[Any] = ["The temple was", "", "A river " * 600, "My brother", None, 7]
    task = Generate(str(artifacts["qwen2"]), {"prompt": "beginning"}, ONE, max_new_tokens=8, temperature=0)
    rows = task.rows([{"id": number, "beginning": prompt} for number, prompt in enumerate(prompts)])
    with load(artifacts["qwen2"], task="text-generation", threads=1) as model:
        expected = [model.generate(prompts[n], max_new_tokens=8, temperature=0).text for n in (0, 3)]
    assert [rows[n]["generated_text"] for n in (0, 3)] == expected
    assert rows[0] == {
        "id": 0,
        "beginning": "The temple was",
        "generated_text": expected[0],
        "finish_reason": "length",
        "error": None,
    }
    for row, message in (
        (rows[1], "is empty"),
        (rows[2], "tokens"),
        (rows[4], "beginning is NoneType, not str or list"),
    ):
        assert (row["generated_text"], row["finish_reason"]) == (None, None)
        assert message in row["error"]


def test_conversations_are_answered_as_by_the_library(artifacts: dict[str, Path]) -> None:
    messages = [{"role": "user", "content": "Where is the temple?"}]
    task = Chat(str(artifacts["qwen2"]), None, ONE, max_new_tokens=8, temperature=0)
    given = [messages, json.dumps(messages), "no JSON", [{"role": "user", "content": "x " * 2000}]]
    rows = task.rows([{"messages": one} for one in given])
    with load(artifacts["qwen2"], task="text-generation", threads=1) as model:
        reply = model.chat(messages, max_new_tokens=8, temperature=0)
    for row in rows[:2]:
        assert (row["answer"], row["thought"], row["error"]) == (reply.text, reply.thought, None)
        assert json.loads(row["tool_calls"]) == []
    assert rows[2]["error"].startswith("messages is not JSON: Expecting value")
    assert rows[3]["error"] is not None
    assert rows[3]["answer"] is None


def test_texts_are_labelled_as_by_the_library(artifacts: dict[str, Path]) -> None:
    texts = ["a delightful film", "x " * 3000, "a waste of time"]
    task = Classify(str(artifacts["sst2"]), None, ONE)
    batch = task({"id": np.array([7, 8, 9]), "text": np.array(texts, dtype=object)})
    with load(artifacts["sst2"], task="text-classification", threads=1) as model:
        expected = model([texts[0], texts[2]])
    assert batch["id"] == [7, 8, 9]
    assert batch["label"] == [expected[0].label, None, expected[1].label]
    assert batch["score"] == [expected[0].score, None, expected[1].score]
    assert [error is None for error in batch["error"]] == [True, False, True]


def test_the_other_heads_give_their_results_in_columns(heads: dict[str, Path]) -> None:
    context = "The temple stands on the hill above the town."
    embedded = Embed(str(heads["embed"]), None, ONE).rows([{"text": "a text"}, {"text": "x " * 3000}])
    with load(heads["embed"], task="feature-extraction", threads=1) as embedder:
        assert embedded[0]["embedding"] == embedder(["a text"])[0].tolist()
    assert embedded[1]["embedding"] is None
    tagged = Tag(str(heads["tag"]), None, ONE, aggregate=True).rows([{"text": context}])
    with load(heads["tag"], task="token-classification", threads=1) as tagger:
        assert tagged[0]["tags"] == [plain(vars(tag)) for tag in tagger([context], aggregate=True)[0]]
    asked = Answer(str(heads["answer"]), None, ONE).rows(
        [{"question": "Where is it?", "context": context}, {"question": "", "context": context}]
    )
    with load(heads["answer"], task="question-answering", threads=1) as answerer:
        best = answerer("Where is it?", context)[0]
    assert (asked[0]["answer"], asked[0]["start"], asked[0]["end"]) == (best.text, best.start, best.end)
    assert asked[1]["answer"] is None
    assert asked[1]["error"] is not None
    json.dumps([embedded, tagged, asked])  # no numbers of numpy


def test_what_the_caller_gives_wrong_is_said_at_once(artifacts: dict[str, Path]) -> None:
    source = str(artifacts["sst2"])
    with pytest.raises(UsageError, match="Classify has no input texts; it has text"):
        Classify(source, {"texts": "t"}, ONE)
    task = Classify(source, None, ONE)
    with pytest.raises(UsageError, match=r"the rows have no column 'text'; name the right ones with columns=.*review"):
        task.rows([{"review": "x"}])
    with pytest.raises(UsageError, match="the rows have a column 'label' already; rename it"):
        task.rows([{"text": "x", "label": 1}])
    with pytest.raises(UsageError, match="function_to_apply"):
        Classify(source, None, ONE, function_to_apply="tanh").rows([{"text": "x"}])
    with pytest.raises(UsageError, match="text-classification"):
        Generate(source, None, ONE)
    assert task.rows([]) == []
