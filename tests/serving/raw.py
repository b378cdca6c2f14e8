"""HTTP over a plain socket: requests that no client library would send."""

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, NamedTuple
from urllib.parse import urlsplit

TIMEOUT = 30.0


class Answer(NamedTuple):
    """An answer: its status, headers in lower case, and body; status 0 where the connection was closed without one."""

    status: int
    headers: dict[str, str]
    body: bytes

    def error(self) -> dict[str, Any]:
        """Return the error in OpenAI's form."""
        error: dict[str, Any] = json.loads(self.body)["error"]
        return error


@contextmanager
def connection(address: str, timeout: float = TIMEOUT) -> Iterator[socket.socket]:
    """Yield a socket that is connected to a server; its operations take ``timeout`` seconds at most."""
    url = urlsplit(address)
    with socket.create_connection((url.hostname, url.port), timeout=timeout) as connected:
        yield connected


def read_answer(stream: BinaryIO) -> Answer:
    """Read one answer from ``connected.makefile("rb")``.

    Raises:
        TimeoutError: nothing came for the connection's timeout.
    """
    try:
        first = stream.readline()
        if not first:
            return Answer(0, {}, b"")
        status = int(first.split()[1])
        headers: dict[str, str] = {}
        while (line := stream.readline().strip()) != b"":
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.lower()] = value.strip()
        if "content-length" in headers:
            return Answer(status, headers, stream.read(int(headers["content-length"])))
        if headers.get("transfer-encoding") != "chunked":
            return Answer(status, headers, stream.read())
        body = b""
        while (size := int(stream.readline() or b"0", 16)) != 0:
            body += stream.read(size)
            stream.readline()
        stream.readline()
        return Answer(status, headers, body)
    except (ConnectionResetError, BrokenPipeError):
        return Answer(0, {}, b"")


def exchange(address: str, *chunks: bytes) -> Answer:
    """Send bytes on a new connection; return the answer."""
    with connection(address) as connected:
        try:
            for chunk in chunks:
                connected.sendall(chunk)
        except (ConnectionResetError, BrokenPipeError):
            pass  # the server may have answered before it had everything
        with connected.makefile("rb") as stream:
            return read_answer(stream)


def post(path: str, body: bytes, *headers: str, kind: str = "application/json") -> bytes:
    """Return the bytes of a request."""
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Type: {kind}", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, *headers, "", ""]).encode("latin-1") + body
