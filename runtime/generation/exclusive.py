"""A lock that refuses instead of waiting: for what one caller at a time may use."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from ...errors import UsageError


class Guard:
    """Holds for one caller; ``name`` is what messages call the thing."""

    def __init__(self, name: str, remedy: str) -> None:
        self._lock = threading.Lock()
        self._name = name
        self._remedy = remedy
        self.closed = False

    @contextmanager
    def held(self) -> Iterator[None]:
        """Raises UsageError where it is in use, or closed."""
        if not self._lock.acquire(blocking=False):
            raise UsageError(
                f"{self._name} is in use, by another thread or by a stream that has not ended; {self._remedy}"
            )
        try:
            self.check()
            yield
        finally:
            self._lock.release()

    def check(self) -> None:
        """Raises UsageError where it is closed."""
        if self.closed:
            raise UsageError(f"{self._name} is closed; {self._remedy}")
