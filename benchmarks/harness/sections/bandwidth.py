"""The machine's memory bandwidth: it bounds a decode step, which reads every weight once.

Each thread computes the bitwise or of its own part of an array far larger than the caches. numpy does that in vector
instructions without the interpreter's lock; a loop in C over the same array is not faster.
"""

import statistics
import threading
import time
from typing import Any

import numpy as np

from ..job import Job

BYTES = 1 << 30
PASSES = 12


def measure(job: Job) -> dict[str, Any]:
    """Return ``gbs``, the median of the passes in 10^9 bytes/s, and ``best``, the fastest."""
    parts = np.array_split(np.ones(BYTES // 8, dtype=np.int64), job.threads)
    speeds = [BYTES / _pass(parts) / 1e9 for _ in range(PASSES)]
    return {"gbs": statistics.median(speeds), "best": max(speeds)}


def _pass(parts: list[Any]) -> float:
    threads = [threading.Thread(target=np.bitwise_or.reduce, args=(part,)) for part in parts]
    begin = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - begin
