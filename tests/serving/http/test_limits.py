"""The sizes of heads and bodies, hosts, and the headers of every answer."""

import threading

import httpx
import pytest
from intaglio.serving.http import body_limit
from intaglio.tests.serving.http.conftest import serve_http
from intaglio.tests.serving.raw import connection, exchange, post, read_answer


def get(path: str, *headers: str, host: str = "localhost") -> bytes:
    return "\r\n".join([f"GET {path} HTTP/1.1", f"Host: {host}", *headers, "", ""]).encode("latin-1")


def test_a_long_body_is_413_before_it_is_sent(plain: str) -> None:
    head = post("/echo", b"").replace(b"Content-Length: 0", b"Content-Length: 100000000000")
    answer = exchange(plain, head)
    assert answer.status == 413
    assert answer.error()["message"] == (
        "the body is longer than 8,388,608 bytes; send less, or serve with a larger --max-body"
    )


def test_a_long_body_without_its_length_is_413() -> None:
    with serve_http(max_body=1000) as address, httpx.Client(base_url=address) as client:
        headers = {"Content-Type": "application/json"}
        answer = client.post("/echo", content=(b"x" * 100 for _ in range(20)), headers=headers)
        assert answer.status_code == 413
        assert client.post("/echo", content=(b for b in [b"{", b"}"]), headers=headers).status_code == 200


def test_a_connection_ends_whose_rejected_body_does_not_end() -> None:
    with serve_http(max_body=1000) as address, connection(address) as connected:
        connected.sendall(post("/echo", b"").replace(b"Content-Length: 0", b"Content-Length: 100000000"))
        with connected.makefile("rb") as stream:
            assert read_answer(stream).status == 413
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            connected.sendall(b"x" * 90_000_000)


@pytest.mark.parametrize(
    ("request_bytes", "status", "message"),
    [
        (get("/" + "a" * 5000), 414, "the path and its query are longer than 4,096 bytes"),
        (get("/health?" + "a" * 5000), 414, "the path and its query are longer than 4,096 bytes"),
        (
            get("/health", *(f"x-{n}: 1" for n in range(200))),
            431,
            "the headers are more than 100 or longer than 16,384",
        ),
        (get("/health", "x: " + "a" * 20_000), 431, "the headers are more than 100 or longer than 16,384 bytes"),
        (get("/health", "x: " + "a" * 2_000_000), 431, "the headers are too long; send fewer"),
        (get("/none"), 404, "GET /none: Not Found"),
        (get("/health/"), 404, "GET /health/: Not Found"),
        (get("/%0a%ff\x7f"), 400, "the request is not HTTP/1.1 as this server reads it"),
        (b"GET / HTTP/1.1\r\n\r\n", 400, "Missing mandatory Host: header"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400, "Found multiple Host: headers"),
        (b"GET / HTTP/9.9\r\nHost: a\r\n\r\n", 400, "the request is of another version than HTTP/1.1; send one of it"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400, "the request is not HTTP/1.1"),
    ],
)
def test_a_bad_head_is_4xx(plain: str, request_bytes: bytes, status: int, message: str) -> None:
    answer = exchange(plain, request_bytes)
    assert answer.status == status
    assert message in answer.error()["message"]
    assert answer.headers["x-request-id"].startswith("req_")


def test_a_body_with_two_lengths_is_400(plain: str) -> None:
    smuggled = post("/echo", b"0\r\n\r\nGET /health HTTP/1.1\r\nHost: a\r\n\r\n", "Transfer-Encoding: chunked")
    answer = exchange(plain, smuggled)
    assert answer.status == 400


def test_a_wrong_method_is_405_and_says_which_are_right(plain: str) -> None:
    answer = exchange(plain, get("/echo"))
    assert (answer.status, answer.headers["allow"]) == (405, "POST")
    assert answer.error()["message"] == "GET /echo: Method Not Allowed"


def test_only_named_hosts_are_served() -> None:
    with serve_http(allowed_hosts=("localhost", "127.0.0.1", "[::1]")) as address:
        for host in ("localhost", "LOCALHOST:8000", "127.0.0.1:80", "[::1]:8000", "localhost."):
            assert exchange(address, get("/health", host=host)).status == 200
        for host in ("evil.example", "evil.example:8000", "localhost.evil.example", "[::2]", "[", ""):
            answer = exchange(address, get("/health", host=host))
            assert answer.status == 403
            assert answer.error()["code"] == "host_not_allowed"
            assert "allow the name with `intaglio serve --allow-host`" in answer.error()["message"]


def test_every_answer_has_headers_that_bind_browsers(plain: str) -> None:
    for path in ("/health", "/none", "/fails", "/" + "a" * 5000):
        headers = exchange(plain, get(path)).headers
        assert headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert headers["x-frame-options"] == "DENY"
        assert "server" not in headers


def test_no_origin_is_allowed_unless_it_is_named(plain: str) -> None:
    asks = {"Origin": "https://a.example", "Access-Control-Request-Method": "POST"}
    answer = httpx.options(f"{plain}/echo", headers=asks)
    assert answer.status_code == 405
    assert "access-control-allow-origin" not in answer.headers
    with serve_http(allowed_origins=("https://a.example",), api_keys=("k",)) as address:
        answer = httpx.options(f"{address}/echo", headers=asks)
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, "https://a.example")
        other = httpx.options(f"{address}/echo", headers={**asks, "Origin": "https://b.example"})
        assert "access-control-allow-origin" not in other.headers


def test_after_a_long_body_freed_memory_is_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    returned = threading.Semaphore(0)
    monkeypatch.setattr(body_limit, "give_back_memory", returned.release)
    with serve_http() as address, httpx.Client(base_url=address) as client:
        assert client.post("/echo", json={"text": "short"}).status_code == 200
        assert not returned.acquire(timeout=0.1)
        assert client.post("/echo", json={"text": "x" * 100_000}).status_code == 200
        assert returned.acquire(timeout=60)
