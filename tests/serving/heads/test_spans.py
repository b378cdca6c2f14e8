"""``/v1/token_classify`` and ``/v1/answer`` against the library."""

from dataclasses import asdict
from typing import Any, cast

import httpx
import pytest
from intaglio.runtime import QuestionAnswerer, TokenClassifier
from intaglio.runtime.load import Model

TEXTS = ["The seal is in the stone.", "a", "Where is it?"]
QUESTION = "Where is the seal?"
CONTEXT = "The engraver cuts a design into the stone, and the seal presses it. " * 4
FAMILIES = ["qwen2", "exaone4"]


def close(found: list[dict[str, Any]], expected: list[Any]) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one == asdict(other) | {"score": pytest.approx(other.score, rel=1e-3)}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("aggregation", ["none", "simple", "first", "average", "max"])
def test_tags_are_the_librarys(http: httpx.Client, library: dict[str, Model], family: str, aggregation: Any) -> None:
    model = cast(TokenClassifier, library[f"{family}-tag"])
    body = {"model": f"{family}-tag", "input": TEXTS, "aggregation_strategy": aggregation}
    answer = http.post("/v1/token_classify", json=body).json()
    assert [one["index"] for one in answer["data"]] == [0, 1, 2]
    for found, expected in zip(answer["data"], model(TEXTS, aggregate=aggregation), strict=True):
        close(found["tags"], expected)
    assert answer["usage"]["total_tokens"] == sum(map(len, model.encode(TEXTS)))


@pytest.mark.parametrize("family", FAMILIES)
def test_answers_are_the_librarys(http: httpx.Client, library: dict[str, Model], family: str) -> None:
    """In one window, and in several."""
    model = cast(QuestionAnswerer, library[f"{family}-answer"])
    for window, stride in ((384, 16), (64, 16)):
        body = {"model": f"{family}-answer", "question": QUESTION, "context": CONTEXT, "top_k": 3}
        body |= {"max_seq_len": window, "doc_stride": stride, "max_answer_len": 5, "align_to_words": True}
        answer = http.post("/v1/answer", json=body).json()
        found = [{key: value for key, value in one.items() if key not in ("index", "object")} for one in answer["data"]]
        expected = model(
            QUESTION, CONTEXT, top_k=3, window=window, stride=stride, max_answer_length=5, align_to_words=True
        )
        close(found, expected)
        windows = model.encode(QUESTION, CONTEXT, window=window, stride=stride)
        assert answer["usage"]["total_tokens"] == sum(map(len, windows))


REFUSALS: dict[str, tuple[str, dict[str, Any], str | None, str]] = {
    "empty text": ("/v1/token_classify", {"model": "qwen2-tag", "input": ["a", ""]}, "input", "text 1 is empty"),
    "aggregation": (
        "/v1/token_classify",
        {"model": "qwen2-tag", "input": "a", "aggregation_strategy": "last"},
        "aggregation_strategy",
        "aggregation_strategy: Input should be 'none', 'simple', 'first', 'average' or 'max'",
    ),
    "token ids": ("/v1/token_classify", {"model": "qwen2-tag", "input": [5]}, "input[0]", "input[0]: "),
    "empty context": (
        "/v1/answer",
        {"model": "qwen2-answer", "question": "a", "context": ""},
        "context",
        "the context is empty: it has no tokens; give at least one word",
    ),
    "stride": (
        "/v1/answer",
        {"model": "qwen2-answer", "question": "a", "context": "b" * 500, "max_seq_len": 20, "doc_stride": 19},
        "context",
        "the question has 1 tokens and leaves 19 of a window of 20 to the context",
    ),
    "windows": (
        "/v1/answer",
        {"model": "qwen2-answer", "question": "a", "context": "b " * 2000, "max_seq_len": 4, "doc_stride": 0},
        "context",
        "the context is read in 1,334 windows of 4 tokens, and 256 are the most; "
        "shorten it, or give a larger max_seq_len",
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_what_cannot_be_read_is_refused(http: httpx.Client, case: str) -> None:
    path, body, param, message = REFUSALS[case]
    answer = http.post(path, json=body)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["message"].startswith(message)
    assert answer.json()["error"]["param"] == param
