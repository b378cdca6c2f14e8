"""/v1/responses over HTTP; tests/serving/clients tries it with the clients of OpenAI."""

import json
from collections.abc import AsyncGenerator
from typing import Any

import httpx
import pytest
from intaglio.runtime.generation.events import Event
from intaglio.serving.engine.engine import Engine

HELLO = {"model": "qwen2", "input": "Where is Seoul?", "max_output_tokens": 6, "temperature": 0}
PATH = "/v1/responses"


def events(http: httpx.Client, **values: Any) -> list[tuple[str, dict[str, Any]]]:
    """Return the events of a stream: name and data."""
    answer = http.post(PATH, json=HELLO | {"stream": True} | values)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    found = []
    for block in answer.text.removesuffix("\n\n").split("\n\n"):
        name, data = block.split("\n")
        found.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found


def test_a_stream_has_named_events_and_no_other_end(http: httpx.Client) -> None:
    found = events(http)
    assert [name for name, _ in found] == [data["type"] for _, data in found]
    assert [data["sequence_number"] for _, data in found] == list(range(len(found)))
    assert found[0][0] == "response.created"
    assert found[-1][0] == "response.incomplete"


def test_a_stream_ends_with_what_is_returned_without_one(http: httpx.Client) -> None:
    def comparable(response: dict[str, Any]) -> dict[str, Any]:
        items = [{name: value for name, value in item.items() if name != "id"} for item in response["output"]]
        return response | {"id": "", "created_at": 0, "completed_at": 0, "output": items, "usage": {}}

    whole = http.post(PATH, json=HELLO).json()
    streamed = events(http)[-1][1]["response"]
    assert comparable(whole) == comparable(streamed)
    assert whole["id"].startswith("resp_")
    assert whole["usage"]["output_tokens"] == 6


@pytest.mark.parametrize(
    ("values", "status", "param"),
    [
        ({"previous_response_id": "resp_1"}, 400, "previous_response_id"),
        ({"model": "nothing"}, 404, "model"),
        ({"model": "sst2"}, 400, "model"),
        ({"tool_choice": "required"}, 400, "tool_choice"),
        ({"input": [{"role": "user", "content": "a"}, {"role": "user", "content": []}]}, 400, "input[1]"),
        ({"input": [{"type": "function_call_output", "call_id": "x", "output": "y"}]}, 400, "input[0]"),
        ({"input": "Seoul " * 2000}, 400, "input"),
        ({"max_output_tokens": 5000}, 400, "max_output_tokens"),
        ({"reasoning": {"effort": "high"}}, 400, "reasoning.effort"),
        ({"chat_template_kwargs": {"messages": []}}, 400, "chat_template_kwargs.messages"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_what_is_wrong_is_named_as_in_the_request(
    http: httpx.Client, values: dict[str, Any], status: int, param: str, stream: bool
) -> None:
    answer = http.post(PATH, json=HELLO | values | {"stream": stream})
    assert answer.status_code == status
    assert answer.json()["error"]["param"] == param


def test_a_failure_in_a_stream_is_its_last_event(http: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Engine.run

    async def broken(self: Engine, *arguments: Any, **options: Any) -> AsyncGenerator[tuple[int, Event], None]:
        async for event in run(self, *arguments, **options):
            yield event
            raise RuntimeError("a fault of the test")

    monkeypatch.setattr(Engine, "run", broken)
    name, data = events(http)[-1]
    assert name == "response.failed"
    assert data["response"]["status"] == "failed"
    assert data["response"]["error"]["code"] == "server_error"
    assert "a fault of the test" not in data["response"]["error"]["message"]
