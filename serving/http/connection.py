"""A connection of uvicorn with time limits for clients that send or read slowly, and errors in OpenAI's form."""

import asyncio
import contextlib
import selectors
import sys
from collections.abc import Sequence
from typing import ClassVar

import h11
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol

from ..errors import ApiError
from ..settings import Settings
from .access import new_id
from .logs import access_log, pairs
from .safe_headers import DEFAULTS

LINGER = 2.0
"""Seconds in which a client may still read an error after which the connection is closed."""

MAX_UNREAD = 64 << 10
"""Bytes beyond the longest body that are discarded after an answer, so that the client comes to read it."""

GRACE = 0.5
"""Seconds by which a time limit is prolonged where the server itself may be the slow one."""

PROGRESS = 64 << 10
"""Bytes that a client which is not slow sends or reads within GRACE."""

MOST_GRACES = 240

MOST_SHOWN = 200  # characters of what h11 finds wrong


class Connection(H11Protocol):
    """One connection. ``connection_class`` makes a class of it with the settings of a server.

    uvicorn itself limits neither the time in which a request must arrive nor the time in which an answer must be read.
    Where the server itself is slow, a limit is prolonged: while bytes of the client wait to be read or the kernel takes
    some for it, and while much of a long body or answer passes.
    """

    settings: ClassVar[Settings]

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._arrival: asyncio.TimerHandle | None = None
        self._writing: asyncio.TimerHandle | None = None
        self._ended = False
        self._unread = 0
        self._begun = False
        self._received = 0
        self._received_before = 0  # when its limit was looked at last
        self._unsent_before = 0
        self._graces = 0
        # Whatever the kernel does not take at once pauses the writer: a client that does not read costs one chunk.
        transport.set_write_buffer_limits(high=0)
        if len(self.connections) > self.settings.max_connections:
            self._end_with(
                ApiError(
                    "the server has as many connections as it allows; try again later",
                    status=503,
                    kind="server_error",
                    code="too_many_connections",
                    retry_after=1,
                )
            )
            return
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._arrival, self._writing):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._ended or self._is_discarding():
            self._unread += len(data)
            if self._unread > self.settings.max_body + MAX_UNREAD:
                self.transport.abort()
                return
            if self._ended:
                return
        else:
            self._unread = 0
        self._begun = True
        self._received += len(data)
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch()

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP; uvicorn calls this where h11 has raised an error."""
        error = sys.exception()
        hint = error.error_status_hint if isinstance(error, h11.RemoteProtocolError) else 400
        reason = "" if error is None else f": {str(error)[:MOST_SHOWN]}"
        if hint == 431:
            self._end_with(ApiError("the headers are too long; send fewer", status=431))
        else:
            self._end_with(ApiError(f"the request is not HTTP/1.1 as this server reads it{reason}"))

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._writing is None:
            self._unsent_before, self._graces = self.transport.get_write_buffer_size(), 0
            self._writing = self.loop.call_later(self.settings.write_timeout, self._too_unread)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._writing is not None:
            self._writing.cancel()
            self._writing = None

    def _is_discarding(self) -> bool:
        """Return True while the rest of a body comes whose request has been answered."""
        return self.cycle is not None and self.cycle.response_complete and self.conn.their_state is h11.SEND_BODY

    def _is_arriving(self) -> bool:
        """Return True from the first byte of a request to its last, and before the first request."""
        if self.conn.their_state is h11.SEND_BODY:
            return True
        return self.conn.their_state is h11.IDLE and (not self._begun or bool(self.conn.trailing_data[0]))

    def _watch(self) -> None:
        """Limit the time in which a request arrives."""
        if self._ended:
            return
        if not self._is_arriving():
            if self._arrival is not None:
                self._arrival.cancel()
                self._arrival = None
        elif self._arrival is None:
            self._received_before, self._graces = self._received, 0
            self._arrival = self.loop.call_later(self.settings.body_timeout, self._too_slow)

    def _too_slow(self) -> None:
        passed, self._received_before = self._received - self._received_before, self._received
        if self._is_prolonged(passed, selectors.EVENT_READ):
            self._arrival = self.loop.call_later(GRACE, self._too_slow)
        elif not self._begun or self._is_discarding():
            self.transport.abort()
        else:
            self._end_with(
                ApiError(f"the request has not arrived in {self.settings.body_timeout:g} seconds", status=408)
            )

    def _too_unread(self) -> None:
        unsent = self.transport.get_write_buffer_size()
        passed, self._unsent_before = self._unsent_before - unsent, unsent
        if self._is_prolonged(passed, selectors.EVENT_WRITE):
            self._writing = self.loop.call_later(GRACE, self._too_unread)
        else:
            self.transport.abort()

    def _is_prolonged(self, passed: int, event: int) -> bool:
        """Return True where a limit is over for which the client need not be to blame.

        Args:
            passed: bytes that have passed since the limit was looked at last.
            event: what the server waits for: EVENT_READ or EVENT_WRITE.
        """
        self._graces += 1
        if self._graces > MOST_GRACES:
            return False
        if passed >= PROGRESS:
            return True
        opened = self.transport.get_extra_info("socket")
        if opened is None or opened.fileno() < 0:
            return False
        with selectors.DefaultSelector() as selector:
            selector.register(opened.fileno(), event)
            return bool(selector.select(0))

    def _end_with(self, error: ApiError) -> None:
        """Answer outside of the application, and close the connection."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True  # the application receives nothing more
            self.cycle.message_event.set()
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.abort()
            return
        identity = new_id()
        client = self.client[0] if self.client else None
        access_log.info(pairs(id=identity, status=error.status, client=client, error=error.message))
        response = error.response()
        headers = [
            *response.raw_headers,
            *((name.lower().encode(), value.encode()) for name, value in DEFAULTS.items()),
            (b"x-request-id", identity.encode()),
            (b"connection", b"close"),
        ]
        self._write(error.status, headers, bytes(response.body))
        self._ended = True
        # Closing now could reset the connection while the client sends, and it would not see the answer.
        with contextlib.suppress(OSError):  # the client has left
            self.transport.write_eof()
        if self._arrival is not None:
            self._arrival.cancel()
        self._arrival = self.loop.call_later(LINGER, self.transport.abort)

    def _write(self, status: int, headers: Sequence[tuple[bytes, bytes]], body: bytes) -> None:
        events = (
            h11.Response(status_code=status, headers=list(headers), reason=STATUS_PHRASES[status]),
            h11.Data(data=body),
            h11.EndOfMessage(),
        )
        self.transport.write(b"".join(self.conn.send(event) or b"" for event in events))


def connection_class(settings: Settings) -> type[Connection]:
    """Return the class of a server's connections."""
    return type("Connection", (Connection,), {"settings": settings})
