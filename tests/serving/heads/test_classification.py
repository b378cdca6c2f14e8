"""``/v1/classify``, ``/v1/score``, ``/v1/rerank`` and ``/predict`` against the library."""

from typing import Any, cast

import httpx
import numpy as np
import pytest
from intaglio.runtime import Embedder, SequenceClassifier
from intaglio.runtime.load import Model

TEXTS = ["The seal is in the stone.", "a", "Where is it?"]
QUERY = "Where is the seal?"
DOCUMENTS = ["In the stone.", "A film about love.", "The ship sailed.", "It is here."]
FAMILIES = ["qwen2", "exaone4"]


def classifier(library: dict[str, Model], name: str) -> SequenceClassifier:
    return cast(SequenceClassifier, library[name])


def post(http: httpx.Client, path: str, body: dict[str, Any]) -> Any:
    answer = http.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("path", ["/classify", "/v1/classify"])
def test_classes_are_the_librarys(http: httpx.Client, library: dict[str, Model], family: str, path: str) -> None:
    model = classifier(library, f"{family}-classify")
    answer = post(http, path, {"model": f"{family}-classify", "input": TEXTS})
    assert (answer["object"], answer["model"]) == ("list", f"{family}-classify")
    tokens = sum(map(len, model.encode(TEXTS)))
    assert answer["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}
    for index, (found, expected) in enumerate(zip(answer["data"], model(TEXTS), strict=True)):
        assert (found["index"], found["label"], found["num_classes"]) == (index, expected.label, 3)
        np.testing.assert_allclose(found["probs"], list(expected.scores.values()), rtol=1e-4)
    ids = [one.ids for one in model.encode(TEXTS)]
    again = post(http, path, {"model": f"{family}-classify", "input": ids})
    for one, other in zip(again["data"], answer["data"], strict=True):
        np.testing.assert_allclose(one["probs"], other["probs"], rtol=1e-5)


def test_raw_outputs_on_request(http: httpx.Client, library: dict[str, Model]) -> None:
    body = {"model": "qwen2-classify", "input": TEXTS[0], "use_activation": False}
    expected = classifier(library, "qwen2-classify")(TEXTS[0], function_to_apply="none")[0]
    np.testing.assert_allclose(
        post(http, "/v1/classify", body)["data"][0]["probs"], list(expected.scores.values()), rtol=1e-4
    )


@pytest.mark.parametrize("raw", [False, True])
def test_scores_of_pairs_are_the_librarys(http: httpx.Client, library: dict[str, Model], raw: bool) -> None:
    model = classifier(library, "rerank")
    function: Any = "none" if raw else "sigmoid"
    for first, second in ((QUERY, DOCUMENTS), (DOCUMENTS, DOCUMENTS[::-1]), (DOCUMENTS, QUERY), (QUERY, QUERY)):
        body = {"model": "rerank", "text_1": first, "text_2": second, "use_activation": not raw}
        answer = post(http, "/v1/score", body)
        firsts = [first] * len(second) if isinstance(first, str) and isinstance(second, list) else first
        expected = model(firsts, text_pairs=second, function_to_apply=function)
        assert [one["index"] for one in answer["data"]] == list(range(len(expected)))
        np.testing.assert_allclose([one["score"] for one in answer["data"]], [one.score for one in expected], rtol=1e-4)


def test_an_embedder_scores_by_the_cosine(http: httpx.Client, library: dict[str, Model]) -> None:
    vectors = cast(Embedder, library["qwen2-embed"])([QUERY, *DOCUMENTS])
    answer = post(http, "/score", {"model": "qwen2-embed", "text_1": QUERY, "text_2": DOCUMENTS})
    np.testing.assert_allclose([one["score"] for one in answer["data"]], vectors[1:] @ vectors[0], atol=1e-5)


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank", "/v2/rerank"])
def test_ranks_are_in_the_order_of_the_scores(http: httpx.Client, library: dict[str, Model], path: str) -> None:
    model = classifier(library, "rerank")
    scores = [one.score for one in model(QUERY, text_pairs=DOCUMENTS)]
    order = sorted(range(len(scores)), key=lambda index: -scores[index])
    documents: list[Any] = [DOCUMENTS[0], {"text": DOCUMENTS[1]}, *DOCUMENTS[2:]]
    answer = post(http, path, {"model": "rerank", "query": QUERY, "documents": documents})
    assert [one["index"] for one in answer["results"]] == order
    assert [one["document"] for one in answer["results"]] == [{"text": DOCUMENTS[index]} for index in order]
    np.testing.assert_allclose(
        [one["relevance_score"] for one in answer["results"]], [scores[index] for index in order], rtol=1e-4
    )
    tokens = sum(map(len, model.encode(QUERY, text_pairs=DOCUMENTS)))
    assert answer["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}
    body = {"model": "rerank", "query": QUERY, "documents": documents, "top_n": 2, "return_documents": False}
    assert post(http, path, body)["results"] == [
        {key: one[key] for key in ("index", "relevance_score")} for one in answer["results"][:2]
    ]


def test_ranks_in_the_form_of_text_embeddings_inference(http: httpx.Client) -> None:
    ours = post(http, "/rerank", {"model": "rerank", "query": QUERY, "documents": DOCUMENTS})["results"]
    theirs = post(http, "/rerank", {"model": "rerank", "query": QUERY, "texts": DOCUMENTS, "return_text": True})
    assert theirs == [
        {"index": one["index"], "text": one["document"]["text"], "score": one["relevance_score"]} for one in ours
    ]


def test_predictions_in_the_form_of_text_embeddings_inference(http: httpx.Client, library: dict[str, Model]) -> None:
    model = classifier(library, "qwen2-classify")
    pairs = list(zip(TEXTS, DOCUMENTS, strict=False))
    cases: list[tuple[Any, list[Any]]] = [
        (TEXTS[0], model(TEXTS[0], top_k=3)),
        (list(pairs[0]), model([TEXTS[0]], text_pairs=[DOCUMENTS[0]], top_k=3)),
        ([[text] for text in TEXTS], model(TEXTS, top_k=3)),
        ([list(pair) for pair in pairs], model(TEXTS, text_pairs=DOCUMENTS[:3], top_k=3)),
    ]
    for inputs, expected in cases:
        answer = post(http, "/predict", {"model": "qwen2-classify", "inputs": inputs})
        listed = answer if isinstance(answer[0], list) else [answer]
        assert (answer is listed) == (isinstance(inputs, list) and isinstance(inputs[0], list))
        for found, one in zip(listed, expected, strict=True):
            assert [entry["label"] for entry in found] == list(one.scores)
            np.testing.assert_allclose([entry["score"] for entry in found], list(one.scores.values()), rtol=1e-4)


REFUSALS: dict[str, tuple[str, dict[str, Any], str | None, str]] = {
    "empty text": ("/v1/classify", {"input": ""}, "input", "the text is empty: it has no tokens"),
    "another task": (
        "/v1/classify",
        {"model": "qwen2-tag", "input": "a"},
        "model",
        "the model 'qwen2-tag' is for token-classification, and /v1/classify for text-classification",
    ),
    "labels": (
        "/v1/score",
        {"text_1": "a", "text_2": "b"},
        "model",
        "the model has 3 labels, and a score is that of a model with one; use /v1/classify",
    ),
    "pairs": (
        "/v1/score",
        {"model": "rerank", "text_1": ["a", "b"], "text_2": ["a", "b", "c"]},
        "text_2",
        "text_1 has 2 texts and text_2 3; give one for each of the other, or one for all",
    ),
    "documents": ("/v1/rerank", {"model": "rerank", "query": "a", "documents": []}, "documents", "documents: "),
    "document": (
        "/v1/rerank",
        {"model": "rerank", "query": "a", "documents": ["b", 5]},
        "documents[1]",
        "documents[1]: ",
    ),
    "top_n": (
        "/v1/rerank",
        {"model": "rerank", "query": "a", "documents": ["b"], "top_n": -1},
        "top_n",
        "top_n: Input should be greater than or equal to 0",
    ),
    "mixed": ("/predict", {"inputs": [["a"], ["a", "b"]]}, "inputs", "inputs has texts and pairs of texts"),
    "truncation": (
        "/v1/classify",
        {"input": "a", "truncate_prompt_tokens": 5},
        "truncate_prompt_tokens",
        "truncate_prompt_tokens: Input should be -1",
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_what_cannot_be_classified_is_refused(http: httpx.Client, case: str) -> None:
    path, body, param, message = REFUSALS[case]
    answer = http.post(path, json={"model": "qwen2-classify"} | body)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["message"].startswith(message)
    assert answer.json()["error"]["param"] == param
