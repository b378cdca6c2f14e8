"""Steps that an interruption must not cut in two."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

INTERRUPTIONS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def deferred_signals() -> Iterator[None]:
    """Handle SIGINT and SIGTERM once the block has ended. Python handles them in the main thread, and only there."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[int] = []
    handlers = {number: signal.getsignal(number) for number in INTERRUPTIONS}
    own = {number: handler for number, handler in handlers.items() if handler is not None}  # None: not set by Python
    try:
        for number in own:
            signal.signal(number, lambda caught, _: received.append(caught))
        yield
    finally:
        for number, handler in own.items():
            signal.signal(number, handler)
        for one in received:
            signal.raise_signal(one)
