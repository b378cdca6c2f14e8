"""The access log, request ids, and what an exception becomes."""

import io
import logging
from collections.abc import Iterator

import httpx
import pytest
from intaglio.serving.http.logs import LineFormatter, pairs
from intaglio.tests.serving.http.conftest import serve_http
from intaglio.tests.serving.raw import exchange


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """The log of the server."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(LineFormatter())
    logger = logging.getLogger("intaglio")
    level = logger.level
    logger.setLevel(logging.INFO)  # which also forgets what child loggers have found before
    logger.addHandler(handler)
    yield stream
    logger.removeHandler(handler)
    logger.setLevel(level)


def test_a_request_is_one_line(lines: io.StringIO) -> None:
    with serve_http(api_keys=("the-key",)) as address:
        headers = {"Authorization": "Bearer the-key", "x-request-id": "job-1.a"}
        answer = httpx.post(f"{address}/echo", json={"text": "the prompt"}, headers=headers)
        assert answer.headers["x-request-id"] == "job-1.a"
    (line,) = lines.getvalue().splitlines()
    fields = dict(pair.split("=") for pair in line.split())
    assert fields["id"] == "job-1.a"
    assert (fields["method"], fields["path"]) == ("POST", "/echo")
    assert (fields["status"], fields["client"]) == ("200", "127.0.0.1")
    assert float(fields["seconds"]) >= 0
    assert "the-key" not in line
    assert "prompt" not in line


def test_contents_are_logged_where_asked(lines: io.StringIO) -> None:
    with serve_http(log_contents=True) as address:
        httpx.post(f"{address}/echo", json={"text": "the\nprompt"})
    assert r'request="{\"text\":\"the\\nprompt\"}" answer="{\"length\":10,\"client\":\"\"}"' in lines.getvalue()


@pytest.mark.parametrize("given", ["a b", 'a"b', "a" * 129, "", "é", "\x1b[31m"])
def test_only_a_plain_id_is_echoed(plain: str, given: str) -> None:
    answer = httpx.get(f"{plain}/health", headers={b"x-request-id": given.encode("latin-1")})
    if answer.status_code == 200:  # an escape in a header is not HTTP
        assert answer.headers["x-request-id"].startswith("req_")
    assert given == "" or given not in answer.headers["x-request-id"]


def test_nothing_from_outside_ends_a_line(lines: io.StringIO) -> None:
    with serve_http() as address:
        exchange(address, b"GET /%0atime=1%20level=info%0d%1b[31m%e2%80%a8 HTTP/1.1\r\nHost: a\r\n\r\n")
        exchange(address, b"GET /\x1b[31m HTTP/1.1\r\nHost: a\r\n\r\n")
    first, second = lines.getvalue().splitlines()[-2:]  # before them may be a line of the test before this one
    assert r'path="/\ntime=1 level=info\r\u001b[31m\u2028" status=404' in first
    assert "status=400" in second
    assert "\x1b" not in second


def test_an_exception_is_500_with_the_reason_in_the_log_alone(lines: io.StringIO) -> None:
    with serve_http() as address:
        answer = httpx.get(f"{address}/fails")
    assert answer.status_code == 500
    assert answer.json() == {
        "error": {
            "message": "the server failed on this request; its log has the reason",
            "type": "server_error",
            "param": None,
            "code": None,
        }
    }
    logged = lines.getvalue()
    assert answer.headers["x-request-id"] in logged
    assert "\n  | RuntimeError: a secret of the server\n" in logged
    assert "status=500" in logged.splitlines()[-1]


def test_pairs_escape_what_is_not_plain() -> None:
    assert pairs(a="b", c=None, d=1.5, e='x "y"', f="a=b", g="") == r'a=b d=1.500 e="x \"y\"" f="a=b" g=""'


def test_a_forged_line_in_an_exception_is_marked() -> None:
    formatter = LineFormatter()
    try:
        raise ValueError("bad\ntime=2026 level=info message=forged\x1b[0m")
    except ValueError as error:
        info = (type(error), error, error.__traceback__)
    record = logging.LogRecord("intaglio.x", logging.ERROR, "", 0, "failed: %s", ("a\nb",), info)
    first, *rest = formatter.format(record).splitlines()
    assert first.endswith(r'level=error logger=intaglio.x message="failed: a\nb"')
    assert rest[-1] == r"  | time=2026 level=info message=forged\x1b[0m"
    assert all(line.startswith("  | ") for line in rest)
