"""Streams at once: tokens/s of all rows together, in decode and with their prefill."""

from typing import Any

from ..engines import open_engine
from ..job import Job
from .speed import Clock

PROMPT, STEPS = 128, 64
ROWS = (1, 2, 4, 8)


def measure(job: Job) -> dict[str, Any]:
    """For each number of rows, ``decode`` and ``whole`` in tokens/s of all rows together."""
    engine = open_engine(job)
    clock = Clock(engine, job)
    figures: dict[str, Any] = {"version": engine.version}
    for rows in job.settings.get("rows", ROWS) if engine.batches else (1,):
        clock.seconds(PROMPT, 4, rows)
        first = clock.seconds(PROMPT, 1, rows)
        whole = clock.seconds(PROMPT, 1 + STEPS, rows)
        figures[str(rows)] = {"decode": rows * STEPS / (whole - first), "whole": rows * (1 + STEPS) / whole}
    return figures
