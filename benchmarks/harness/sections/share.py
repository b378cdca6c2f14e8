"""The share of a decode step that intaglio spends outside ONNX Runtime's passes."""

import statistics
import time
from typing import Any

from .. import passes
from ..engines.intaglio_runtime import Engine
from ..job import Job, varied

PROMPT, STEPS = 128, 127


def measure(job: Job) -> dict[str, Any]:
    """Return ``share``, of the time between the end of prefill and the return; ``own`` and ``step`` in µs per step."""
    engine = Engine(job)
    ids = job.prompt("long", PROMPT)
    engine.generate([varied(ids, 0)], 8)
    with passes.recorded() as found:
        engine.generate([varied(ids, 1)], 1 + STEPS)
        end = time.perf_counter()
    steps = passes.last(found, STEPS)
    before = found[-STEPS - 1].end
    whole, running = end - before, sum(step.seconds for step in steps)
    return {
        "share": 1 - running / whole,
        "own": (whole - running) / STEPS * 1e6,
        "step": whole / STEPS * 1e6,
        "median": statistics.median(step.seconds for step in steps) * 1e6,
    }
