"""Chat completions of the tiny models: the library's answers, whole and streamed."""

import json
from pathlib import Path

import httpx
import pytest
from intaglio.tests.runtime.fakes import text_generator

MESSAGES = [{"role": "user", "content": "hello there"}]


@pytest.mark.parametrize("family", ["qwen2", "exaone4"])
def test_an_answer_is_the_librarys(family: str, artifacts: dict[str, Path], http: httpx.Client) -> None:
    with text_generator(artifacts[family], threads=1) as generator:
        reply = generator.chat(MESSAGES, max_new_tokens=12)
    body = {"model": family, "messages": MESSAGES, "max_completion_tokens": 12}
    answer = http.post("/v1/chat/completions", json=body).json()
    assert answer["choices"][0]["message"]["content"] == reply.text
    assert reply.generation is not None
    assert answer["usage"]["completion_tokens"] == len(reply.generation.token_ids)
    streamed = http.post("/v1/chat/completions", json=body | {"stream": True}).text
    assert streamed.endswith("data: [DONE]\n\n")
    chunks = [json.loads(line.removeprefix("data: ")) for line in streamed.split("\n\n")[:-2]]
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == reply.text
