"""``/tokenize`` and ``/detokenize`` for every task; ``/v1/models`` and ``/version``."""

from pathlib import Path
from typing import Any, cast

import httpx
import intaglio
import pytest
from intaglio.runtime import TextGenerator
from intaglio.runtime.load import Model
from openai import NotFoundError, OpenAI

TEXT = "The seal is in the stone. 你好"
MESSAGES = [{"role": "user", "content": "Where is it?"}]


@pytest.mark.parametrize("name", ["lm", "rerank", "qwen2-classify", "exaone4-tag", "qwen2-answer", "exaone4-embed"])
def test_text_to_tokens_and_back(http: httpx.Client, library: dict[str, Model], name: str) -> None:
    tokenizer = library[name].tokenizer
    assert tokenizer is not None
    answer = http.post("/tokenize", json={"model": name, "prompt": TEXT, "return_token_strs": True}).json()
    tokens = tokenizer.encode(TEXT)
    context = library[name].manifest.model.context_length
    strings = [tokenizer.backend.id_to_token(token) for token in tokens]
    assert answer == {"count": len(tokens), "max_model_len": context, "tokens": tokens, "token_strs": strings}
    assert http.post("/detokenize", json={"model": name, "tokens": tokens}).json() == {"prompt": TEXT}


def test_special_tokens_are_shown(http: httpx.Client, library: dict[str, Model]) -> None:
    tokenizer = library["lm"].tokenizer
    assert tokenizer is not None
    assert tokenizer.eos_token_id is not None
    answer = http.post("/detokenize", json={"model": "lm", "tokens": [40, tokenizer.eos_token_id]}).json()
    assert answer["prompt"].endswith(tokenizer.token_text(tokenizer.eos_token_id))
    assert http.post("/detokenize", json={"model": "lm", "tokens": []}).json() == {"prompt": ""}


def test_a_conversation_is_tokenized_as_the_model_reads_it(http: httpx.Client, library: dict[str, Model]) -> None:
    model = cast(TextGenerator, library["lm"])
    assert model.tokenizer is not None
    bodies: list[dict[str, Any]] = [{}, {"add_generation_prompt": False}, {"tools": [], "add_special_tokens": True}]
    for body in bodies:
        answer = http.post("/tokenize", json={"model": "lm", "messages": MESSAGES, **body}).json()
        text = model.chat_format.render(MESSAGES, add_generation_prompt=body.get("add_generation_prompt", True))
        special = bool(body.get("add_special_tokens"))
        expected = model.tokenizer.encode_with_offsets(text, add_special_tokens=special).ids
        assert answer["tokens"] == expected


def test_what_is_known_of_the_tokenizer(http: httpx.Client, library: dict[str, Model]) -> None:
    found = http.get("/tokenizer_info", params={"model": "lm"}).json()
    tokenizer = library["lm"].tokenizer
    assert tokenizer is not None
    assert found["eos_token"] == tokenizer.backend.id_to_token(tokenizer.eos_token_id or 0)
    assert found["chat_template"] == cast(TextGenerator, library["lm"]).chat_format.templates["default"]
    assert {"bos_token", "pad_token", "unk_token", "tokenizer_class"} < found.keys()


REFUSALS: dict[str, tuple[str, dict[str, Any], str | None, str]] = {
    "neither": ("/tokenize", {}, "prompt", "give either prompt or messages"),
    "both": ("/tokenize", {"prompt": "a", "messages": MESSAGES}, "messages", "give either prompt or messages"),
    "no chat": (
        "/tokenize",
        {"model": "rerank", "messages": MESSAGES},
        "messages",
        "the model has no chat template; give prompt instead of messages",
    ),
    "reserved": (
        "/tokenize",
        {"messages": MESSAGES, "chat_template_kwargs": {"messages": []}},
        "messages",
        "chat_template_kwargs: 'messages' is set by the request itself; leave it out",
    ),
    "id": ("/detokenize", {"tokens": [288]}, "tokens", "tokens: token id 288 is out of range"),
    "negative": ("/detokenize", {"tokens": [-1]}, "tokens", "tokens: token id -1 is out of range"),
    "huge": ("/detokenize", {"tokens": [10**40]}, "tokens", "tokens must be text or a flat list of whole numbers"),
    "text": ("/detokenize", {"tokens": ["a"]}, "tokens[0]", "tokens[0]: Input should be a valid integer"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_what_cannot_be_tokenized_is_refused(http: httpx.Client, case: str) -> None:
    path, body, param, message = REFUSALS[case]
    answer = http.post(path, json={"model": "lm"} | body)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["message"].startswith(message)
    assert answer.json()["error"]["param"] == param


def test_the_models_have_cards(client: OpenAI, heads: dict[str, Path], library: dict[str, Model]) -> None:
    cards = {card.id: card for card in client.models.list()}
    assert list(cards) == list(heads)
    for name, card in cards.items():
        assert client.models.retrieve(name).model_dump(exclude={"loaded"}) == card.model_dump(exclude={"loaded"})
        assert (card.object, card.owned_by) == ("model", "intaglio")
        assert card.created == int((heads[name] / "intaglio.json").stat().st_mtime)
        more = card.model_extra or {}
        manifest = library[name].manifest
        assert more["max_model_len"] == more["context_length"] == manifest.model.context_length
        assert (more["task"], more["family"], more["precision"]) == (manifest.task, manifest.family, "fp32")
        assert more["parity"] == {"verdict": manifest.parity.verdict}
        assert more["labels"] == list(manifest.model.labels)
        assert more["chat"] == (name == "lm")
    with pytest.raises(NotFoundError, match="there is no model 'none'"):
        client.models.retrieve("none")


def test_a_card_says_whether_the_model_is_in_memory(http: httpx.Client) -> None:
    http.post("/v1/classify", json={"model": "qwen2-classify", "input": "a"})
    assert http.get("/v1/models/qwen2-classify").json()["loaded"] is True


def test_the_version_is_the_packages(http: httpx.Client) -> None:
    assert http.get("/version").json() == {"version": intaglio.__version__}
