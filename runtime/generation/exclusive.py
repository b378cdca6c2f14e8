"""A lock that refuses instead of waiting, for objects that one caller at a time may use."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from ...errors import UsageError


class ExclusiveUse:
    """Grants the use of an object to one caller until the object is closed.

    Args:
        name: the object's name in messages.
        remedy: what a refused caller can do instead.
    """

    def __init__(self, name: str, remedy: str) -> None:
        self._lock = threading.Lock()
        self._name = name
        self._remedy = remedy
        self.closed = False

    @contextmanager
    def acquired(self) -> Iterator[None]:
        """Use the object within a ``with`` block.

        Raises:
            UsageError: the object is in use, or closed.
        """
        if not self._lock.acquire(blocking=False):
            raise UsageError(
                f"{self._name} is in use, by another thread or by a stream that has not ended; {self._remedy}"
            )
        try:
            self.check_open()
            yield
        finally:
            self._lock.release()

    def check_open(self) -> None:
        """Check that the object is not closed.

        Raises:
            UsageError: it is.
        """
        if self.closed:
            raise UsageError(f"{self._name} is closed; {self._remedy}")
