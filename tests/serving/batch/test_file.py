"""Files of requests: their answers, in order, whatever a line holds, and a run that goes on where another ended."""

import asyncio
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from intaglio import load
from intaglio.errors import OutputError
from intaglio.serving.app import create_app
from intaglio.serving.batch import file as batch_file
from intaglio.serving.batch.file import answer_file
from intaglio.serving.engine.models import Models, named_models
from intaglio.serving.settings import Settings
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route

PROMPTS = ["The temple was", "A river", "My brother saw", "In the morning", "The old man"]


def request(custom_id: str, url: str = "/v1/completions", **body: Any) -> str:
    return json.dumps({"custom_id": custom_id, "method": "POST", "url": url, "body": body})


def write(path: Path, lines: Sequence[str | bytes]) -> Path:
    path.write_bytes(b"".join((line.encode() if isinstance(line, str) else line) + b"\n" for line in lines))
    return path


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def run(app: Starlette, source: Path, target: Path, at_once: int = 4, progress: Any = lambda *_: None) -> None:
    async def within() -> None:
        async with app.router.lifespan_context(app):
            await answer_file(app, source, target, at_once, progress)

    asyncio.run(within())


def echo_app(calls: list[str], wait: Callable[[str], Any] | None = None) -> Starlette:
    """Answer with the body's "say", after ``wait`` of it."""

    async def echo(request: Request) -> JSONResponse:
        said = (await request.json())["say"]
        calls.append(said)
        if wait is not None:
            await wait(said)
        return JSONResponse({"said": said}, headers={"X-Request-Id": f"r-{said}"})

    async def plain(request: Request) -> PlainTextResponse:
        return PlainTextResponse("no JSON")

    return Starlette(routes=[Route("/v1/echo", echo, methods=["POST"]), Route("/v1/plain", plain, methods=["POST"])])


@contextmanager
def server_app(artifacts: dict[str, Path], *names: str) -> Iterator[Starlette]:
    settings = Settings(slots=2, max_queue=1000)
    yield create_app(
        Models(named_models({name: artifacts[name] for name in names}), settings, {"threads": 1}), settings
    )


def test_answers_are_the_librarys(artifacts: dict[str, Path], tmp_path: Path) -> None:
    options: dict[str, Any] = {"model": "qwen2", "max_tokens": 12, "temperature": 0}
    lines = [request(f"c{number}", prompt=prompt, **options) for number, prompt in enumerate(PROMPTS)]
    with server_app(artifacts, "qwen2") as app:
        run(app, write(tmp_path / "in", lines), tmp_path / "out")
    found = read(tmp_path / "out")
    assert [line["custom_id"] for line in found] == ["c0", "c1", "c2", "c3", "c4"]
    assert [line["id"] for line in found] == [f"batch_req_{n}" for n in range(1, 6)]
    assert {line["error"] for line in found} == {None}
    assert {line["response"]["status_code"] for line in found} == {200}
    assert all(line["response"]["request_id"] for line in found)
    with load(artifacts["qwen2"], task="text-generation", threads=1) as model:
        expected = [model.generate(prompt, max_new_tokens=12, temperature=0).text for prompt in PROMPTS]
    assert [line["response"]["body"]["choices"][0]["text"] for line in found] == expected


def test_a_refused_request_is_a_response_of_its_own(artifacts: dict[str, Path], tmp_path: Path) -> None:
    lines = [
        request("wrong", model="qwen2", prompt="x", max_tokens=-1),
        request("unknown", model="gpt-9", prompt="x"),
        request("path", url="/v1/nothing"),
        request("right", model="qwen2", prompt="x", max_tokens=1),
    ]
    failures: list[bool] = []
    with server_app(artifacts, "qwen2") as app:
        run(app, write(tmp_path / "in", lines), tmp_path / "out", progress=lambda *given: failures.append(given[2]))
    found = read(tmp_path / "out")
    assert [line["response"]["status_code"] for line in found] == [400, 404, 404, 200]
    assert found[0]["response"]["body"]["error"]["param"] == "max_tokens"
    assert failures == [False, True, True, True, False]


WRONG: list[tuple[str | bytes, str, str]] = [
    ("not JSON", "invalid_json_line", "line 1 is not JSON: "),
    ("[1]", "invalid_json_line", "line 1 is not an object; write {"),
    ('{"custom_id": 7}', "invalid_custom_id", "line 1: custom_id must be a text of 1 to 512 characters"),
    ('{"custom_id": ""}', "invalid_custom_id", "line 1: custom_id must be a text of 1 to 512 characters"),
    ('{"custom_id": "a", "url": "/v1/echo", "body": {}}', "invalid_method", 'line 1: method must be "POST"'),
    (
        '{"custom_id": "a", "method": "POST", "url": "http://x/v1/echo", "body": {}}',
        "invalid_url",
        "line 1: url must be a path such as /v1/chat/completions",
    ),
    (
        '{"custom_id": "a", "method": "POST", "url": "/v1/echo", "body": []}',
        "invalid_body",
        "line 1: body must be the object of the request",
    ),
    (
        request("a", "/v1/echo", stream=True),
        "invalid_body",
        "line 1: a batch has no streams; leave out body.stream",
    ),
    (
        '{"custom_id": "a", "method": "POST", "url": "/v1/echo", "body": {}, "priority": 1}',
        "unknown_parameter",
        "line 1: unknown priority; write {",
    ),
    (request("a", "/v1/plain"), "invalid_url", "line 1: /v1/plain does not answer with JSON"),
    (b'{"custom_id": "\xff"}', "invalid_json_line", "line 1 is not JSON: "),
    (r'{"custom_id": "\ud800"}', "invalid_json_line", "line 1 is not JSON: "),
]


@pytest.mark.parametrize(("line", "code", "message"), WRONG)
def test_a_line_that_cannot_be_sent_has_an_error_and_stops_no_other(
    tmp_path: Path, line: str | bytes, code: str, message: str
) -> None:
    source = write(tmp_path / "in", [line, request("b", "/v1/echo", say="hi")])
    run(echo_app([]), source, tmp_path / "out")
    wrong, right = read(tmp_path / "out")
    assert wrong["response"] is None
    assert wrong["error"]["code"] == code
    assert wrong["error"]["message"].startswith(message)
    assert right["response"] == {"status_code": 200, "request_id": "r-hi", "body": {"said": "hi"}}


def test_an_id_that_is_given_twice_is_an_error(tmp_path: Path) -> None:
    calls: list[str] = []
    source = write(tmp_path / "in", [request("a", "/v1/echo", say="1"), request("a", "/v1/echo", say="2")])
    run(echo_app(calls), source, tmp_path / "out")
    assert read(tmp_path / "out")[1]["error"] == {
        "code": "duplicate_custom_id",
        "message": "line 2: an earlier line has custom_id 'a'",
    }
    assert calls == ["1"]


def test_answers_are_written_in_order_however_long_they_take(tmp_path: Path) -> None:
    released = asyncio.Event()

    async def wait(said: str) -> None:
        if said == "3":
            released.set()
        if said == "0":
            await released.wait()  # the last of the window has begun before the first ends

    calls: list[str] = []
    source = write(tmp_path / "in", [request(f"c{n}", "/v1/echo", say=str(n)) for n in range(9)])
    run(echo_app(calls, wait), source, tmp_path / "out")
    assert [line["response"]["body"]["said"] for line in read(tmp_path / "out")] == [str(n) for n in range(9)]
    assert sorted(calls[:4]) == ["0", "1", "2", "3"]


class StopError(Exception):
    """Ends a run, as a signal does."""


def test_an_interrupted_run_goes_on_without_answering_again(tmp_path: Path) -> None:
    lines = [request(f"c{n}", "/v1/echo", say=str(n)) for n in range(20)]
    source, target = write(tmp_path / "in", lines), tmp_path / "out"

    def stop(done: int, total: int, failed: bool) -> None:
        if done == 7:
            raise StopError

    with pytest.raises(StopError):
        run(echo_app([]), source, target, progress=stop)
    assert len(read(target)) == 7
    with target.open("a", encoding="utf-8") as stream:
        stream.write('{"id": "batch_req_8", "custom_id": "c7", "resp')  # the power went

    calls: list[str] = []
    seen: list[tuple[int, int]] = []
    run(echo_app(calls), source, target, progress=lambda done, total, _: seen.append((done, total)))
    assert [line["custom_id"] for line in read(target)] == [f"c{n}" for n in range(20)]
    assert [line["response"]["body"]["said"] for line in read(target)] == [str(n) for n in range(20)]
    assert calls == [str(n) for n in range(7, 20)]
    assert seen[0] == (7, 20)
    assert seen[-1] == (20, 20)
    before = target.read_bytes()
    run(echo_app(calls), source, target)
    assert target.read_bytes() == before


@pytest.mark.parametrize(
    "written", ['{"custom_id": "other"}\n', "no JSON\n", "{}\n", '{"custom_id": "c0"}\n{"custom_id": "c1"}\n']
)
def test_answers_of_another_file_are_not_touched(tmp_path: Path, written: str) -> None:
    source, target = write(tmp_path / "in", [request("c0", "/v1/echo", say="1")]), tmp_path / "out"
    target.write_text(written)
    number = written.count("\n")
    message = rf"out: line {number} is not the answer to line {number} of .*in; give another file for the answers"
    with pytest.raises(OutputError, match=message):
        run(echo_app([]), source, target)
    assert target.read_text() == written


def test_a_line_that_is_too_long_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_file, "MAX_LINE", 200)
    lines = [request("a", "/v1/echo", say="x" * 1000), "", "  ", request("b", "/v1/echo", say="hi")]
    run(echo_app([]), write(tmp_path / "in", lines), tmp_path / "out")
    long, right = read(tmp_path / "out")
    assert long["error"]["code"] == "invalid_json_line"
    assert right["response"]["body"] == {"said": "hi"}
