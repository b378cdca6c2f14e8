"""Connections: slow clients, half of a request, several requests on one connection."""

import contextlib
import time

import httpx
import pytest
from intaglio.tests.serving.http.conftest import LARGE, http_app, serve_http
from intaglio.tests.serving.live import live_app
from intaglio.tests.serving.raw import TIMEOUT, connection, exchange, post, read_answer

SHORT = 0.3  # seconds


@pytest.mark.parametrize(
    "beginning",
    [b"G", b"GET / HTTP/1.1\r\nHost: a\r\n", post("/echo", b"").replace(b"Length: 0", b"Length: 9") + b"{"],
)
def test_a_request_that_does_not_arrive_is_408(beginning: bytes) -> None:
    with serve_http(body_timeout=SHORT) as address, connection(address) as connected:
        connected.sendall(beginning)
        with connected.makefile("rb") as stream:
            answer = read_answer(stream)
            assert answer.status == 408
            assert answer.headers["connection"] == "close"
            assert answer.error()["message"] == "the request has not arrived in 0.3 seconds"
            assert stream.read() == b""


def test_a_connection_without_a_byte_is_closed() -> None:
    reset = contextlib.suppress(ConnectionResetError)
    with serve_http(body_timeout=SHORT) as address, connection(address) as connected, reset:
        assert connected.recv(1) == b""


def test_a_second_request_that_does_not_arrive_is_408() -> None:
    with (
        serve_http(body_timeout=SHORT) as address,
        connection(address) as connected,
        connected.makefile("rb") as stream,
    ):
        connected.sendall(post("/echo", b"{}"))
        assert read_answer(stream).status == 200
        connected.sendall(b"GET /")
        assert read_answer(stream).status == 408


def test_a_request_may_be_answered_for_longer_than_it_may_arrive() -> None:
    with serve_http(body_timeout=SHORT) as address, httpx.stream("GET", f"{address}/endless") as answer:
        end = time.monotonic() + 2 * SHORT
        assert any(time.monotonic() > end for _ in answer.iter_raw())


def test_a_busy_server_does_not_refuse_what_has_come() -> None:
    """The body takes many reads, between which the loop is busy: together longer than a request may take."""
    with serve_http(body_timeout=SHORT) as address, connection(address) as connected:
        httpx.post(f"{address}/busy")
        connected.sendall(post("/echo", b'{"text": "%s"}' % (b"x" * 4_000_000)))
        with connected.makefile("rb") as stream:
            answer = read_answer(stream)
    assert (answer.status, answer.body) == (200, b'{"length":4000000,"client":""}')


def test_a_client_that_reads_what_a_busy_server_sends_is_not_left() -> None:
    with serve_http(write_timeout=SHORT) as address, connection(address) as connected:
        httpx.post(f"{address}/busy")
        connected.sendall(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n")
        with connected.makefile("rb") as stream:
            answer = read_answer(stream)
    assert (answer.status, len(answer.body)) == (200, LARGE)


def test_a_client_that_does_not_read_is_left() -> None:
    app = http_app(write_timeout=SHORT)
    with live_app(app) as address, connection(address) as connected:
        connected.sendall(b"GET /endless HTTP/1.1\r\nHost: a\r\n\r\n")
        assert connected.recv(4) == b"HTTP"
        deadline = time.monotonic() + TIMEOUT
        while app.state.server.active:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_requests_of_one_connection_are_answered_in_order(plain: str) -> None:
    with connection(plain) as connected, connected.makefile("rb") as stream:
        lengths = [3, 1, 4, 1, 5]
        connected.sendall(b"".join(post("/echo", b'{"text": "%s"}' % (b"x" * length)) for length in lengths))
        for length in lengths:
            answer = read_answer(stream)
            assert (answer.status, answer.body) == (200, b'{"length":%d,"client":""}' % length)


def test_a_rejected_body_is_not_the_next_request(plain: str) -> None:
    with connection(plain) as connected, connected.makefile("rb") as stream:
        hidden = b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n"
        connected.sendall(post("/none", hidden) + post("/echo", b"{}"))
        assert read_answer(stream).status == 404
        assert read_answer(stream).body == b'{"length":0,"client":""}'


def test_too_many_connections_are_503() -> None:
    with serve_http(max_connections=2) as address:
        with connection(address), connection(address):
            answer = exchange(address)
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        assert answer.error()["code"] == "too_many_connections"


def test_an_upgrade_is_an_ordinary_request(plain: str) -> None:
    with connection(plain) as connected, connected.makefile("rb") as stream:
        connected.sendall(
            b"GET /health HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        assert read_answer(stream).status == 200


def test_a_client_that_waits_for_100_gets_it(plain: str) -> None:
    with connection(plain) as connected, connected.makefile("rb") as stream:
        head, _, body = post("/echo", b"{}", "Expect: 100-continue").partition(b"\r\n\r\n")
        connected.sendall(head + b"\r\n\r\n")
        assert stream.readline() == b"HTTP/1.1 100 Continue\r\n"
        assert stream.readline() == b"\r\n"
        connected.sendall(body)
        assert read_answer(stream).status == 200
