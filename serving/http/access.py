"""The outermost layer: an id and a line of the log for every request, and an answer to every exception."""

import logging
import re
import secrets
import time

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..errors import failed
from ..record import HttpRecord, begin
from .logs import access_log, pairs
from .streams import ClientLeftError

log = logging.getLogger(__name__)

CLIENT_LEFT = 499
"""The status in the log of a request whose client left before the answer; nginx uses it."""

MOST_PATH = 200  # characters of a path in the log
_CLEAN_ID = re.compile(rb"[A-Za-z0-9._:/-]{1,128}")


class Access:
    """Give each request an id and log it when it has been answered; answer 500 where an exception comes this far.

    Args:
        contents: log the bodies of requests and answers as well.
    """

    def __init__(self, app: ASGIApp, contents: bool) -> None:
        self._app = app
        self._contents = contents

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        record = HttpRecord(id=request_id(scope))
        begin(record)
        status: int | None = None
        finished = False
        bodies: dict[str, bytearray] = {"request": bytearray(), "answer": bytearray()}

        async def receiving() -> Message:
            message = await receive()
            if self._contents:
                bodies["request"] += message.get("body", b"")
            return message

        async def sending(message: Message) -> None:
            nonlocal status, finished
            if message["type"] == "http.response.start":
                status = message["status"]
                milliseconds = round(1000 * (time.monotonic() - record.started))
                more = (
                    (b"x-request-id", record.id.encode("ascii")),
                    (b"openai-processing-ms", str(milliseconds).encode("ascii")),
                )
                message = {**message, "headers": [*message["headers"], *more]}
            else:
                finished = not message.get("more_body", False)
                if self._contents:
                    bodies["answer"] += message.get("body", b"")
            await send(message)

        try:
            await self._app(scope, receiving, sending)
        except (ClientDisconnect, ClientLeftError):
            status = status or CLIENT_LEFT
        except Exception as error:
            log.error("%s %s failed: %s", scope["method"], record.id, type(error).__name__, exc_info=error)
            if status is not None:
                raise  # the answer has begun: the server closes the connection
            await failed().response()(scope, receiving, sending)
        finally:
            _write_line(scope, record, status or CLIENT_LEFT, finished)
            if self._contents:
                shown = {name: bytes(body).decode("utf-8", "replace") for name, body in bodies.items()}
                access_log.info(pairs(id=record.id, **shown))


def request_id(scope: Scope) -> str:
    """Return the id that the client gave in ``x-request-id`` where it is a plain word, else a new one."""
    given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
    return given.decode("ascii") if _CLEAN_ID.fullmatch(given) else new_id()


def new_id() -> str:
    """Return the id of a request."""
    return f"req_{secrets.token_hex(12)}"


def _write_line(scope: Scope, record: HttpRecord, status: int, finished: bool) -> None:
    now = time.monotonic()
    client = scope.get("client")
    access_log.info(
        pairs(
            id=record.id,
            method=scope["method"],
            path=scope["path"][:MOST_PATH],
            status=status,
            finished=None if finished else "no",
            client=client[0] if client else None,
            key=record.client or None,
            model=record.model,
            prompt_tokens=record.prompt_tokens or None,
            cached_tokens=record.cached_tokens or None,
            tokens=record.tokens or None,
            first=None if record.first_token is None else record.first_token - record.started,
            seconds=now - record.started,
        )
    )
