"""Decode speed and memory at one context length, or at every step while the context grows.

``settings``: {"context": n, "steps": m, "keep": True records each step's time, "kv_cache": ``load``'s option}. A step
is timed from the end of one pass to the end of the next, so that growing the buffers between them counts.
"""

import statistics
from itertools import pairwise
from typing import Any

from .. import memory, passes
from ..engines.intaglio_runtime import Engine
from ..job import Job


def measure(job: Job) -> dict[str, Any]:
    """Return ``prefill`` in s; ``median``, ``p99`` and ``slowest`` step in ms; ``decode`` in tokens/s; memory in MB."""
    engine = Engine(job)
    loaded = memory.resident()
    context, count = job.settings["context"], job.settings["steps"]
    with passes.recorded() as found:
        engine.generate([job.prompt("long", context)], 1 + count)
    taken = passes.last(found, count)
    ends = [found[-count - 1].end, *(step.end for step in taken)]
    steps = [(end - begin) * 1e3 for begin, end in pairwise(ends)]
    ordered = sorted(steps)
    return {
        "context": context,
        "prefill": found[-count - 1].end - found[0].begin,
        "median": statistics.median(steps),
        "decode": 1e3 / statistics.median(steps),
        "p99": ordered[min(count - 1, int(0.99 * count))],
        "slowest": ordered[-1],
        "loaded": loaded,
        "rss": memory.resident(),
        "peak": memory.peak(),
        "steps": [round(step, 3) for step in steps] if job.settings["keep"] else [],
    }
