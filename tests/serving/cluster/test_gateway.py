"""The gateway with replicas that the test makes: what is sent again, and how an answer ends whose replica is lost."""

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

import httpx
import pytest
from intaglio.serving.cluster.gateway import BrokenOffError, Forward, Gateway, ReplicaLostError
from intaglio.serving.cluster.prefixes import links
from intaglio.serving.errors import ApiError
from intaglio.serving.http.inprocess import Answer, Call, messages
from intaglio.serving.settings import Settings

JSON = [(b"content-type", b"application/json")]
EVENTS = [(b"content-type", b"text/event-stream; charset=utf-8")]
LOST = ReplicaLostError("it was killed")


def start(headers: list[tuple[bytes, bytes]] = JSON, status: int = 200) -> dict[str, Any]:
    return {"type": "http.response.start", "status": status, "headers": headers}


def part(body: bytes, more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": body, "more_body": more}


class Replicas:
    """Each call receives the next script: lists of messages, and an exception to raise."""

    def __init__(self, *scripts: Sequence[Any]) -> None:
        self.scripts = list(scripts)
        self.calls: list[tuple[Call, Sequence[int]]] = []
        self.closed = 0

    async def forward(self, call: Call, links: Sequence[int]) -> AsyncGenerator[list[Any], None]:
        self.calls.append((call, links))
        try:
            for step in self.scripts.pop(0):
                if isinstance(step, Exception):
                    raise step
                yield step
        finally:
            self.closed += 1


async def no_metrics(call: Call) -> Mapping[str, Answer]:
    return {}


def gateway(forward: Forward, ask_all: Any = no_metrics, attempts: int = 3, **settings: Any) -> Gateway:
    return Gateway(forward, ask_all, Settings(**settings), attempts)


def post(app: Gateway, path: str = "/v1/chat/completions", body: bytes = b"{}", **others: Any) -> httpx.Response:
    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
            return await client.post(path, content=body, **others)

    return asyncio.run(send())


def test_an_answer_passes_as_it_is() -> None:
    replicas = Replicas([[start(status=418), part(b'{"a":', True)], [part(b" 1}")]])
    answer = post(gateway(replicas.forward), "/v1/x%20y?q=1", b"body", headers={"Authorization": "Bearer k"})
    assert (answer.status_code, answer.content) == (418, b'{"a": 1}')
    call, _ = replicas.calls[0]
    assert (call.method, call.path, call.query, call.body) == ("POST", "/v1/x%20y", b"q=1", b"body")
    assert (b"authorization", b"Bearer k") in call.headers
    assert call.scope()["path"] == "/v1/x y"


def test_the_links_of_a_request_go_with_it() -> None:
    body = json.dumps({"prompt": "x" * 1000}).encode()
    replicas = Replicas([[start(), part(b"")]])
    post(gateway(replicas.forward), body=body, headers={"X-Session-Id": "seven"})
    assert replicas.calls[0][1] == links(body, [(b"x-session-id", b"seven")])


@pytest.mark.parametrize("before", [[], [[start(EVENTS)]]])
def test_a_request_whose_replica_is_lost_before_it_answers_is_sent_again(before: list[Any]) -> None:
    replicas = Replicas([*before, LOST], [*before, LOST], [[start(), part(b"fine")]])
    answer = post(gateway(replicas.forward), body=b"the body")
    assert (answer.status_code, answer.content) == (200, b"fine")
    assert [call.body for call, _ in replicas.calls] == [b"the body"] * 3
    assert replicas.closed == 3


def test_after_the_last_attempt_the_client_is_told_to_try_again() -> None:
    answer = post(gateway(Replicas([LOST], [LOST]).forward, attempts=2))
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "1"
    assert answer.json()["error"] == {
        "message": "2 replicas were lost before they answered the request; try again later",
        "type": "server_error",
        "param": None,
        "code": "replica_lost",
    }


def test_a_stream_whose_replica_is_lost_ends_with_an_error_event() -> None:
    replicas = Replicas([[start(EVENTS), part(b'data: {"n": 1}\n\n', True)], LOST])
    answer = post(gateway(replicas.forward))
    first, error, done, end = answer.text.split("\n\n")
    assert (first, done, end) == ('data: {"n": 1}', "data: [DONE]", "")
    assert json.loads(error.removeprefix("data: "))["error"] == {
        "message": "the replica that answered is lost, and the answer is not complete; send the request again",
        "type": "server_error",
        "param": None,
        "code": "replica_lost",
    }
    assert len(replicas.calls) == 1


def test_a_stream_of_responses_ends_with_an_error_in_its_own_form() -> None:
    answer = post(
        gateway(Replicas([[start(EVENTS), part(b"event: a\ndata: {}\n\n", True)], LOST]).forward), "/v1/responses"
    )
    name, data = answer.text.split("\n\n")[1].split("\n")
    assert name == "event: error"
    assert json.loads(data.removeprefix("data: "))["code"] == "replica_lost"


def test_an_answer_that_cannot_say_so_breaks_the_connection() -> None:
    with pytest.raises(BrokenOffError, match=r"POST /v1/chat/completions: the replica is lost"):
        post(gateway(Replicas([[start(), part(b"{", True)], LOST]).forward))


def test_a_replica_that_is_lost_after_its_answer_changes_nothing() -> None:
    assert post(gateway(Replicas([[start(), part(b"done")], LOST]).forward)).content == b"done"


def test_an_error_of_the_cluster_is_answered_in_the_protocols_form() -> None:
    answer = post(gateway(Replicas([ApiError("nobody is there", status=503, code="unavailable")]).forward))
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "unavailable")


def test_a_long_body_is_refused_before_it_is_forwarded() -> None:
    replicas = Replicas()
    answer = post(gateway(replicas.forward, max_body=10), body=b"x" * 11)
    assert answer.status_code == 413
    assert answer.json()["error"]["message"] == (
        "the body is longer than 10 bytes; send less, or serve with a larger max_body"
    )
    assert replicas.calls == []


def test_a_body_that_does_not_arrive_is_not_waited_for() -> None:
    async def endless() -> AsyncGenerator[bytes, None]:
        yield b"x"
        await asyncio.Event().wait()

    answer = post(gateway(Replicas().forward, body_timeout=0.01), body=endless())  # type: ignore[arg-type]
    assert answer.status_code == 408
    assert answer.json()["error"]["message"] == "the body has not arrived in 0.01 seconds; send it faster"


def test_the_metrics_of_all_replicas_are_one_page() -> None:
    page = b'# HELP seen_total Requests.\n# TYPE seen_total counter\nseen_total{model="m"} %d.0\n'

    async def two(call: Call) -> Mapping[str, Answer]:
        return {"b": Answer(200, page % 2), "a": Answer(200, page % 1)}

    answer = post(gateway(Replicas().forward, two), "/metrics")
    assert answer.text == (
        "# HELP seen_total Requests.\n# TYPE seen_total counter\n"
        'seen_total{model="m",replica="a"} 1.0\nseen_total{model="m",replica="b"} 2.0\n'
    )


def test_metrics_that_a_replica_refuses_are_refused() -> None:
    async def refused(call: Call) -> Mapping[str, Answer]:
        return {"a": Answer(401, b'{"error": 1}')}

    answer = post(gateway(Replicas().forward, refused), "/metrics")
    assert (answer.status_code, answer.json()) == (401, {"error": 1})
    assert post(gateway(Replicas().forward), "/metrics").status_code == 503


def test_a_client_that_leaves_ends_its_call() -> None:
    replicas = Replicas([[start(EVENTS), part(b"data: 1\n\n", True)], [part(b"data: 2\n\n", True)]])

    async def leave() -> None:
        async for _ in messages(gateway(replicas.forward), Call("POST", "/v1/completions")):
            break
        await asyncio.sleep(0)

    asyncio.run(leave())
    assert replicas.closed == 1
