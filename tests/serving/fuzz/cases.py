"""Cases: a hostile request each, drawn from a seed and a number."""

import json
import random
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ..raw import post
from .forms import Endpoint, paths
from .values import GRAMMARS, REGEXES, SCHEMAS, STRINGS, changed, hostile

HOST = "Host: localhost"
METHODS = ("GET", "PUT", "DELETE", "PATCH", "TRACE", "OPTIONS", "X" * 1000)
MEDIA_TYPES = ("", "text/plain", "multipart/form-data; boundary=a", "application/json; charset=utf-7", ";", "é")

MOST_JSON = 16 << 20
"""Bytes of the longest list in a body: twice what a server takes by default."""


class Case(NamedTuple):
    """Bytes for a new connection, and how it goes on.

    Attributes:
        name: what kind of request it is.
        parts: what is sent, one after the other.
        ending: "answer" waits for an answer; "half" sends no more (FIN) and waits; "leave" closes at once.
        fails: success would be wrong.
        may_close: the server may close the connection without an answer.
        shown: what a finding shows.
    """

    name: str
    parts: tuple[bytes, ...]
    ending: str = "answer"
    fails: bool = True
    may_close: bool = False
    shown: str = ""


def draw_case(index: int, seed: int, endpoints: Sequence[Endpoint]) -> Case:
    """Return the case of a number."""
    draw = random.Random(f"{seed}/{index}")
    if draw.random() < 0.75:
        endpoint = draw.choice(endpoints)
        return draw.choices((parameter, inner, special, text), (8, 3, 3, 2))[0](endpoint, draw)
    return draw.choice(WIRE)(draw.choice(endpoints), draw)


def of_body(name: str, endpoint: Endpoint, body: Any, fails: bool) -> Case:
    """Return the case of a body."""
    raw = json.dumps(body).encode()
    return Case(name, (post(endpoint.path, raw, "Connection: close"),), fails=fails, shown=f"{endpoint.path} {raw!r}")


def parameter(endpoint: Endpoint, draw: random.Random) -> Case:
    """Return a good body with a hostile value of one parameter."""
    name = draw.choice(sorted(endpoint.schema["properties"]))
    value = hostile(endpoint.schema["properties"][name], endpoint.schema, draw)
    return of_body(f"parameter {name}", endpoint, {**endpoint.good, name: value}, False)


def inner(endpoint: Endpoint, draw: random.Random) -> Case:
    """Return a good body with a change somewhere in it."""
    return of_body("inner", endpoint, changed(endpoint.good, draw), False)


def special(endpoint: Endpoint, draw: random.Random) -> Case:
    """Return a good body with a parameter that explodes where it is used."""
    tool = {"type": "function", "function": {"name": "f", "parameters": draw.choice(SCHEMAS)}}
    form = {"type": "json_schema", "json_schema": {"name": "a", "schema": draw.choice(SCHEMAS)}}
    more: dict[str, Any] = draw.choice(
        (
            {"stop": [f"s{n}" for n in range(10_000)]},
            {"logit_bias": {str(n): 100 for n in range(100_000)}},
            {"logit_bias": {"a": 1}},
            {"n": 10**9},
            {"n": 128, "best_of": 10**9},
            {"top_logprobs": 10**6, "logprobs": True},
            {"response_format": form},
            {"response_format": {"type": "json_object", "json_schema": {}}},
            {"tools": [tool], "tool_choice": "required"},
            {"tools": many(tool, 5000)},
            {"tools": [tool], "tool_choice": {"type": "function", "function": {"name": "g"}}},
            {"regex": draw.choice(REGEXES)},
            {"guided_regex": draw.choice(REGEXES)},
            {"grammar": draw.choice(GRAMMARS)},
            {"guided_json": draw.choice(SCHEMAS)},
            {"text": {"format": {"type": "json_schema", "name": "a", "schema": draw.choice(SCHEMAS)}}},
            {"chat_template": "{% for a in range(10**9) %}{% endfor %}"},
            {"chat_template_kwargs": {"chat_template": "{{ 1 }}", "messages": [], "tools": {}, "raise_exception": 1}},
            {"chat_template_kwargs": {"a": {"b": [1] * 5000}, "enable_thinking": draw.choice(STRINGS)}},
            {"messages": [{"role": "user", "content": "x" * 2_000_000}]},
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "file:///a"}}]}]},
            {"messages": [{"role": "tool", "tool_call_id": "x", "content": "y"}] * 3000},
            {"prompt": "x" * 2_000_000},
            {"prompt": [list(range(1000))] * 100},
            {"prompt": [-1, 10**9]},
            {"input": ["x"] * 50_000},
            {"input": "x" * 2_000_000},
            {"max_tokens": 10**9},
            {"model": draw.choice(STRINGS)},
            {"seed": -(10**18)},
            {"stream": True, "stream_options": {"include_usage": 5}},
        )
    )
    return of_body(f"special {'+'.join(more)}", endpoint, {**endpoint.good, **more}, False)


def many(value: Any, count: int) -> list[Any]:
    """Return a value so many times, or as often as fits into MOST_JSON: making more would stop the fuzzer for long."""
    return [value] * min(count, max(1, MOST_JSON // len(json.dumps(value))))


def text(endpoint: Endpoint, draw: random.Random) -> Case:
    """Return what is not the JSON of a good body."""
    good = json.dumps(endpoint.good).encode()
    raw = draw.choice(
        (
            b"",
            b"\x00",
            good[: draw.randrange(len(good))],
            good + b"}",
            b"\xef\xbb\xbf" + good,
            good.decode().encode("utf-16"),
            good.replace(b'"', b"'"),
            good.replace(b"{", b'{"model": "a", "model": "b", ', 1),
            good.replace(b"{", b'{"max_tokens": NaN, ', 1),
            good.replace(b"{", b'{"temperature": 1e999, ', 1),
            good.replace(b"{", b'{"seed": %s, ' % (b"9" * 50_000), 1),
            good.replace(b"{", b'{"user": "\\ud800", ', 1),
            good.replace(b"{", b'{"user": "\xff\xfe", ', 1),
            good.replace(b"{", b'{"user": "\xed\xa0\x80", ', 1),
            b"[" * 1_000_000,
            b'{"a":' * 100_000,
            b"[" + b"[]," * 1_000_000 + b"0]",
            b'{"messages": [' + b'{"role": "user"},' * 100_000 + b"0]}",
            b"[%s]" % good,
            b'"' + b"\\u0041" * 100_000 + b'"',
            b'{"messages": ' + b"9" * 4_000_000 + b"}",
            b" " * 9_000_000,
            draw.randbytes(300),
        )
    )
    return Case("text", (post(endpoint.path, raw, "Connection: close"),), shown=f"{endpoint.path} {raw[:300]!r}")


def _request(endpoint: Endpoint, *lines: str, body: bytes = b"", first: str = "") -> bytes:
    """Return the bytes of a request with its own headers."""
    start = first or f"POST {endpoint.path} HTTP/1.1"
    return "\r\n".join([start, *lines, "", ""]).encode("latin-1") + body


def header_bomb(endpoint: Endpoint, draw: random.Random) -> Case:
    lines = draw.choice(
        (
            [f"x-{n}: 1" for n in range(draw.choice((101, 1000, 100_000)))],
            ["x: " + "a" * draw.choice((20_000, 300_000, 3_000_000))],
            ["a" * 20_000 + ": x"],
            ["cookie: " + "a=b; " * 10_000],
        )
    )
    raw = _request(endpoint, HOST, *lines, "Connection: close")
    return Case("header bomb", (raw,), shown=repr(raw[:200]))


def smuggling(endpoint: Endpoint, draw: random.Random) -> Case:
    hidden = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    raw = draw.choice(
        (
            _request(endpoint, HOST, "Content-Length: 5", "Transfer-Encoding: chunked", body=b"0\r\n\r\n" + hidden),
            _request(endpoint, HOST, "Content-Length: 5", "Content-Length: 6", body=b"0\r\n\r\n" + hidden),
            _request(endpoint, HOST, "Content-Length: 5, 6", body=b"0\r\n\r\n"),
            _request(endpoint, HOST, "Content-Length: -5", body=b"0\r\n\r\n"),
            _request(endpoint, HOST, "Content-Length: +5", body=b"0\r\n\r\n"),
            _request(endpoint, HOST, "Content-Length: 0x5", body=b"0\r\n\r\n"),
            _request(endpoint, HOST, "Content-Length: " + "9" * 100),
            _request(endpoint, HOST, "Content-Length : 5", body=b"0\r\n\r\n"),
            _request(endpoint, HOST, "Transfer-Encoding: chunked, identity", body=b"0\r\n\r\n"),
            _request(endpoint, HOST, "Transfer-Encoding: xchunked", body=b"0\r\n\r\n"),
            _request(endpoint, HOST, "Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n"),
            _request(endpoint, HOST, "Transfer-Encoding:\tchunked", "Content-Length: 1", body=b"0\r\n\r\n"),
            _request(endpoint, HOST, "Transfer-Encoding: chunked", body=b"-1\r\nabc\r\n0\r\n\r\n"),
            _request(endpoint, HOST, "Transfer-Encoding: chunked", body=b"fffffffffffffffffffff\r\nabc\r\n"),
            _request(endpoint, HOST, "Transfer-Encoding: chunked", body=b"1;" + b"a" * 100_000),
            _request(endpoint, HOST, "Transfer-Encoding: chunked", body=b"1\r\na\r\n" * 300_000 + b"0\r\n\r\n"),
            _request(endpoint, HOST, "Transfer-Encoding: chunked", body=b"0\r\nx: " + b"a" * 100_000),
            _request(endpoint, HOST, "x: a\r\n b: c", "Connection: close"),
            _request(endpoint, HOST, "x: a\nContent-Length: 9", "Connection: close"),
            _request(endpoint, HOST, "x\x00y: a"),
            _request(endpoint, HOST, ": a"),
            _request(endpoint, "Host: a", "Host: b"),
            _request(endpoint, "Host: localhost/@evil"),
            _request(endpoint, "Host: [::1"),
            _request(endpoint),
        )
    )
    return Case("smuggling", (raw,), shown=repr(raw[:300]))


def first_line(endpoint: Endpoint, draw: random.Random) -> Case:
    first = draw.choice(
        (
            "GET / HTTP/9.9",
            "GET / HTTP/1.1 HTTP/1.1",
            "GET /",
            "GET  / HTTP/1.1",
            "get\t/\tHTTP/1.1",
            "PRI * HTTP/2.0",
            "\x16\x03\x01\x02\x00",
            "GET " + "/a" * 5000 + " HTTP/1.1",
            "GET " + "/a" * 500_000 + " HTTP/1.1",
            "GET /v1/models/../../etc/passwd HTTP/1.1",
            "GET /page/..%2f..%2f..%2fsettings.py HTTP/1.1",
            "GET /page/%00 HTTP/1.1",
            "GET /page//etc/passwd HTTP/1.1",
            "GET /%ff%fe%0d%0a HTTP/1.1",
            "GET http://evil.example/%0a HTTP/1.1",
            "CONNECT evil.example:443 HTTP/1.1",
            "OPTIONS * HTTP/1.1",
            "TRACE /health HTTP/1.1",
            f"{draw.choice(METHODS)} {endpoint.path} HTTP/1.1",
            f"POST {draw.choice(paths('GET'))} HTTP/1.1",
            f"POST {endpoint.path}/ HTTP/1.1",
            f"POST {endpoint.path}%20 HTTP/1.1",
            f"POST {endpoint.path.upper()} HTTP/1.1",
        )
    )
    raw = _request(endpoint, HOST, "Connection: close", first=first)
    return Case("first line", (raw,), shown=repr(raw[:200]))


def media_type(endpoint: Endpoint, draw: random.Random) -> Case:
    kind = draw.choice(
        ("", "text/plain", "multipart/form-data; boundary=a", "application/json; charset=utf-7", ";", "é")
    )
    more = draw.choice(((), ("Content-Encoding: gzip",), ("Expect: 200-ok",)))
    raw = post(endpoint.path, json.dumps(endpoint.good).encode(), *more, "Connection: close", kind=kind)
    return Case("media type", (raw,), shown=repr(raw[:300]))


def slow(endpoint: Endpoint, draw: random.Random) -> Case:
    """Return a request that does not arrive."""
    whole = post(endpoint.path, json.dumps(endpoint.good).encode())
    return Case("slow", (whole[: draw.randrange(1, len(whole))],), may_close=True, shown=f"part of {whole[:80]!r}")


def half_closed(endpoint: Endpoint, draw: random.Random) -> Case:
    whole = post(endpoint.path, json.dumps(endpoint.good).encode())
    sent = draw.choice((whole, whole[: draw.randrange(len(whole))], b""))
    return Case("half-closed", (sent,), "half", fails=False, may_close=True, shown=repr(sent[:200]))


def leaving(endpoint: Endpoint, draw: random.Random) -> Case:
    body = {**endpoint.good, "stream": draw.choice((True, False))}
    whole = post(endpoint.path, json.dumps(body).encode())
    sent = draw.choice((whole, whole * 3, whole[: draw.randrange(len(whole))]))
    return Case("leaving", (sent,), "leave", fails=False, may_close=True, shown=repr(sent[:200]))


def huge_body(endpoint: Endpoint, draw: random.Random) -> Case:
    """Return a body that is longer than allowed, with and without its length."""
    if draw.random() < 0.5:
        raw = _request(endpoint, HOST, "Content-Type: application/json", "Content-Length: 1000000000000")
        return Case("huge body", (raw, b"[" * 1000), shown=repr(raw))
    head = _request(endpoint, HOST, "Content-Type: application/json", "Transfer-Encoding: chunked")
    chunk = b"100000\r\n" + b" " * 0x100000 + b"\r\n"
    return Case("huge body", (head, *[chunk] * 12), shown=repr(head))


def pipelined(endpoint: Endpoint, draw: random.Random) -> Case:
    """Return garbage behind a request; the answer is that of the request."""
    raw = _request(endpoint, HOST, first="GET /none HTTP/1.1") + draw.randbytes(draw.choice((10, 100_000)))
    return Case("pipelined", (raw,), shown=repr(raw[:100]))


WIRE: tuple[Callable[[Endpoint, random.Random], Case], ...] = (
    header_bomb,
    smuggling,
    smuggling,
    first_line,
    first_line,
    media_type,
    slow,
    half_closed,
    leaving,
    leaving,
    huge_body,
    pipelined,
)
