"""Which requests may come in: a bounded number altogether and of each client, and when others may try again."""

import math
import time
from collections import Counter, deque
from collections.abc import Callable
from itertools import pairwise
from statistics import median

from ..errors import ApiError

RECENT = 16
LONGEST_WAIT = 60


class Admission:
    """Counts the open requests of one model. For one thread: that of the event loop.

    Args:
        name: the model's.
        places: how many requests run together.
        max_queue: how many more may wait.
        per_key: how many of one client may wait or run; None for any number.
        clock: returns the time in seconds.
    """

    def __init__(
        self,
        name: str,
        places: int,
        max_queue: int,
        per_key: int | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name = name
        self._most = places + max_queue
        self._per_key = per_key
        self._clock = clock
        self._clients: Counter[str] = Counter()
        self._ends: deque[float] = deque(maxlen=RECENT)
        self.open = 0

    def check(self, count: int = 1, client: str = "") -> None:
        """Check that so many requests of one client may come in, all or none. A client without a name has no limit.

        Raises:
            ApiError: 429 where too many are open; 400 where so many never fit.
        """
        limits = [(self._most, self.open, "this model")]
        if self._per_key is not None and client:
            limits.append((self._per_key, self._clients[client], "one API key"))
        for most, _, whose in limits:
            if count > most:
                raise ApiError(
                    f"{count} prompts and choices in one call are more than the {most} requests that the server takes "
                    f"of {whose} at once; send several calls"
                )
        if self.open + count > self._most:
            raise queue_full(self._name, self.open, self._most, self.retry_after(count))
        if self._per_key is not None and client and self._clients[client] + count > self._per_key:
            raise ApiError(
                f"{self._clients[client]} requests of this API key are open at {self._name}, and it takes "
                f"{self._per_key}; wait for one to end before you send the next",
                status=429,
                kind="rate_limit_error",
                code="rate_limit_exceeded",
                retry_after=self.retry_after(count),
            )

    def enter(self, count: int, client: str = "") -> None:
        """Let so many requests in, each of which is to ``leave``; errors as ``check``."""
        self.check(count, client)
        self.open += count
        self._clients[client] += count

    def leave(self, client: str = "") -> None:
        """Let one request out."""
        self.open -= 1
        self._clients[client] -= 1
        if not self._clients[client]:
            del self._clients[client]
        self._ends.append(self._clock())

    def retry_after(self, count: int = 1) -> int:
        """Return the seconds until ``count`` requests will have ended, by the median time between recent ends."""
        if len(self._ends) < 2:
            return 1
        between = median(after - before for before, after in pairwise(self._ends))
        return min(max(1, math.ceil(count * between)), LONGEST_WAIT)


def queue_full(model: str, found: int, most: int, retry_after: int = 1) -> ApiError:
    """Return the answer where too many requests are open."""
    return ApiError(
        f"the queue of {model} is full: {found} requests are open, and it takes {most}; try again later",
        status=429,
        kind="rate_limit_error",
        code="queue_full",
        retry_after=retry_after,
    )
