"""``/v1/embeddings`` against the library: floats and base64, texts and token ids, counts, refusals."""

import base64
from typing import Any, cast

import httpx
import numpy as np
import pytest
from intaglio.runtime import Embedder
from intaglio.runtime.load import Model
from openai import BadRequestError, OpenAI

TEXTS = ["The seal is in the stone.", "a", "Where is it? " * 4]
FAMILIES = ["qwen2", "exaone4"]


def embedder(library: dict[str, Model], family: str) -> Embedder:
    return cast(Embedder, library[f"{family}-embed"])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_vectors_are_the_librarys(client: OpenAI, library: dict[str, Model], family: str, encoding: Any) -> None:
    model = embedder(library, family)
    expected = model(TEXTS)
    answer = client.embeddings.create(model=f"{family}-embed", input=TEXTS, encoding_format=encoding)
    assert answer.object == "list"
    assert answer.model == f"{family}-embed"
    assert [one.index for one in answer.data] == [0, 1, 2]
    found: list[Any] = [one.embedding for one in answer.data]
    if encoding == "base64":
        found = [np.frombuffer(base64.b64decode(one), "<f4") for one in found]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert answer.usage.prompt_tokens == sum(map(len, model.encode(TEXTS))) == answer.usage.total_tokens


def test_the_openai_client_decodes_the_base64_that_it_asks_for(client: OpenAI, library: dict[str, Model]) -> None:
    answer = client.embeddings.create(model="qwen2-embed", input=TEXTS[0])
    np.testing.assert_allclose(answer.data[0].embedding, embedder(library, "qwen2")(TEXTS[0])[0], atol=1e-6)


def test_token_ids_are_embedded_as_they_are(client: OpenAI, library: dict[str, Model]) -> None:
    model = embedder(library, "qwen2")
    ids = [one.ids for one in model.encode(TEXTS)]
    expected = model(TEXTS)
    for given, found in ((ids, expected), (ids[1], expected[1:2])):
        answer = client.embeddings.create(model="qwen2-embed", input=given, encoding_format="float")
        np.testing.assert_allclose([one.embedding for one in answer.data], found, atol=1e-6)


def test_many_texts_keep_their_order(client: OpenAI, library: dict[str, Model]) -> None:
    """They are run in several steps, by length."""
    texts = [" ".join(["word"] * (index % 7 + 1)) + str(index) for index in range(40)]
    answer = client.embeddings.create(model="qwen2-embed", input=texts, encoding_format="float")
    np.testing.assert_allclose(
        [one.embedding for one in answer.data], embedder(library, "qwen2")(texts), rtol=1e-4, atol=1e-6
    )


def test_the_length_of_the_vectors_can_be_given_and_not_changed(client: OpenAI, library: dict[str, Model]) -> None:
    size = embedder(library, "qwen2").dimensions
    assert len(client.embeddings.create(model="qwen2-embed", input="a", dimensions=size).data[0].embedding) == size
    with pytest.raises(BadRequestError, match="dimensions is 8, and the model's vectors have 64; leave dimensions out"):
        client.embeddings.create(model="qwen2-embed", input="a", dimensions=8)


def test_the_form_of_text_embeddings_inference(http: httpx.Client, library: dict[str, Model]) -> None:
    model = embedder(library, "qwen2")
    answer = http.post("/embed", json={"model": "qwen2-embed", "inputs": TEXTS, "normalize": False})
    np.testing.assert_allclose(answer.json(), model(TEXTS, normalize=False), rtol=1e-5, atol=1e-6)
    answer = http.post("/embed", json={"model": "qwen2-embed", "inputs": "a"})
    np.testing.assert_allclose(answer.json(), model(["a"]), atol=1e-6)


REFUSALS: dict[str, tuple[dict[str, Any], str | None, str]] = {
    "empty": ({"input": ["a", ""]}, "input", "text 1 is empty: it has no tokens; give at least one word"),
    "no such id": (
        {"input": [5, 288]},
        "input",
        "the text: token id 288 is out of range",
    ),
    "empty list": ({"input": []}, "input", "input: "),
    "too many": (
        {"input": ["a"] * 2049},
        "input",
        "input: it has 2,049 texts, and 2,048 are the most of one call; send several",
    ),
    "encoding": (
        {"encoding_format": "int8"},
        "encoding_format",
        "encoding_format: Input should be 'float' or 'base64'",
    ),
    "prompt": ({"prompt_name": "query"}, None, "there is no prompt named 'query'; the model's prompts are: none"),
    "two prompts": (
        {"prompt_name": "query", "input_type": "query"},
        "input_type",
        "prompt_name and input_type both name the model's prompt; give one",
    ),
    "another task": (
        {"model": "lm"},
        "model",
        "the model 'lm' is for text-generation, and /v1/embeddings for feature-extraction",
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_what_cannot_be_embedded_is_refused(http: httpx.Client, case: str) -> None:
    change, param, message = REFUSALS[case]
    answer = http.post("/v1/embeddings", json={"model": "qwen2-embed", "input": "a"} | change)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["message"].startswith(message)
    assert answer.json()["error"]["param"] == param


def test_a_text_that_is_too_long_is_refused_or_cut_off(
    client: OpenAI, http: httpx.Client, library: dict[str, Model]
) -> None:
    long = "x" * 200
    with pytest.raises(BadRequestError, match="cut it off with truncate_prompt_tokens=-1") as caught:
        client.embeddings.create(model="qwen2-embed", input=long)
    assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "input")
    more = {"truncate_prompt_tokens": -1}
    answer = client.embeddings.create(model="qwen2-embed", input=long, encoding_format="float", extra_body=more)
    expected = embedder(library, "qwen2")(long, truncation=True)[0]
    np.testing.assert_allclose(answer.data[0].embedding, expected, atol=1e-6)
    assert answer.usage.prompt_tokens == 128
    cut = http.post("/embed", json={"model": "qwen2-embed", "inputs": long, "truncate": True})
    np.testing.assert_allclose(cut.json()[0], expected, atol=1e-6)
