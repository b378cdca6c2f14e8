"""The lines of a batch: OpenAI's form of a request and of its answer.

    {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": {...}}
    {"id": "batch_req_1", "custom_id": "a", "response": {"status_code", "request_id", "body"}, "error": null}

An answer of the server, whatever its status, is a response; a line that cannot be sent has an error.
"""

import json
from dataclasses import dataclass
from typing import Any

from starlette.types import ASGIApp

from ...files.json_file import parse_json
from ..http.inprocess import Call, answer

FORM = '{"custom_id": "...", "method": "POST", "url": "/v1/...", "body": {...}}'
MOST_ID = 512  # characters


@dataclass(frozen=True)
class Line:
    """A line of a batch.

    Attributes:
        number: from 1 on.
        custom_id: None where the line has none.
        call: its request; None where it has an error.
        error: why it cannot be sent, with "code" and "message".
    """

    number: int
    custom_id: str | None
    call: Call | None = None
    error: dict[str, str] | None = None

    def answered(self, response: dict[str, Any] | None, error: dict[str, str] | None = None) -> dict[str, Any]:
        """Return the line of the answer."""
        return {
            "id": f"batch_req_{self.number}",
            "custom_id": self.custom_id,
            "response": response,
            "error": error,
        }


class LineReader:
    """Reads lines one after the other; an id that an earlier line has is an error."""

    def __init__(self) -> None:
        self._ids: set[str] = set()
        self._count = 0

    def read(self, raw: bytes) -> Line:
        """Return the next line."""
        self._count += 1
        number = self._count
        try:
            values = parse_json(raw, constants=False)
        except ValueError as error:
            return _wrong(number, None, "invalid_json_line", f"line {number} is not JSON: {error}")
        if not isinstance(values, dict):
            return _wrong(number, None, "invalid_json_line", f"line {number} is not an object; write {FORM}")
        own = values.get("custom_id")
        if not isinstance(own, str) or not 0 < len(own) <= MOST_ID:
            message = f"line {number}: custom_id must be a text of 1 to {MOST_ID} characters"
            return _wrong(number, None, "invalid_custom_id", message)
        if own in self._ids:
            return _wrong(number, own, "duplicate_custom_id", f"line {number}: an earlier line has custom_id {own!r}")
        self._ids.add(own)
        return _request(number, own, values)


def _request(number: int, own: str, values: dict[str, Any]) -> Line:
    """Return the line with its request, where that can be sent."""
    method, url, body = (values.get(name) for name in ("method", "url", "body"))
    if unknown := sorted(set(values) - {"custom_id", "method", "url", "body"}):
        return _wrong(number, own, "unknown_parameter", f"line {number}: unknown {', '.join(unknown)}; write {FORM}")
    if method != "POST":
        return _wrong(number, own, "invalid_method", f'line {number}: method must be "POST"')
    if not isinstance(url, str) or not url.startswith("/v1/") or not url.isascii():
        return _wrong(number, own, "invalid_url", f"line {number}: url must be a path such as /v1/chat/completions")
    if not isinstance(body, dict):
        return _wrong(number, own, "invalid_body", f"line {number}: body must be the object of the request")
    if body.get("stream"):
        return _wrong(number, own, "invalid_body", f"line {number}: a batch has no streams; leave out body.stream")
    content = json.dumps(body).encode()
    headers = ((b"content-type", b"application/json"), (b"content-length", str(len(content)).encode()))
    return Line(number, own, Call("POST", url, content, headers=headers))


def _wrong(number: int, custom_id: str | None, code: str, message: str) -> Line:
    return Line(number, custom_id, error={"code": code, "message": message})


async def answer_line(app: ASGIApp, line: Line) -> dict[str, Any]:
    """Return the answer of a line by the server's application."""
    if line.call is None:
        return line.answered(None, line.error)
    found = await answer(app, line.call)
    try:
        body = json.loads(found.body)
    except ValueError:
        message = f"line {line.number}: {line.call.path} does not answer with JSON"
        return line.answered(None, {"code": "invalid_url", "message": message})
    request_id = found.headers.get("x-request-id")
    return line.answered({"status_code": found.status, "request_id": request_id, "body": body})
