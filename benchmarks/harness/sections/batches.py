"""Throughput of several sequences at once, in decode and with their prefill."""

from typing import Any

from ..engines import import_engine
from ..job import Job
from .speed import Clock

PROMPT, STEPS = 128, 64
BATCH_SIZES = (1, 2, 4, 8, 16)


def measure(job: Job) -> dict[str, Any]:
    """Return ``decode`` and ``whole`` for each batch size, in tokens/s of all sequences together."""
    engine = import_engine(job.tool)(job)
    clock = Clock(engine, job)
    figures: dict[str, Any] = {"version": engine.version}
    for size in job.settings.get("sizes", BATCH_SIZES) if engine.batches else (1,):
        clock.seconds(PROMPT, 4, size)
        first = clock.seconds(PROMPT, 1, size)
        whole = clock.seconds(PROMPT, 1 + STEPS, size)
        figures[str(size)] = {"decode": size * STEPS / (whole - first), "whole": size * (1 + STEPS) / whole}
    return figures
