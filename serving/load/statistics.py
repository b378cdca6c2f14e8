"""Figures of a run: percentiles of the times, and throughput in its window."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from .schedule import Run

PERCENTILES = (50, 90, 99)


def figures(run: Run) -> dict[str, Any]:
    """Return the figures of a run for JSON; times in seconds, None where nothing was measured.

    Times are of the requests without an error, from the moment that each was due. Throughput counts what came in the
    window, also by requests of the warm-up that were still answered.
    """
    done = [sample for sample in run.samples if sample.error is None]
    seconds = run.end - run.start
    output = sum(sample.tokens_between(run.start, run.end) for sample in run.all)
    read = sum(s.prompt_tokens for s in run.all if s.chunks and run.start <= s.chunks[0] <= run.end)
    errors = Counter(sample.error for sample in run.samples if sample.error is not None)
    return {
        "requests": len(run.samples),
        "completed": len(done),
        "errors": dict(errors.most_common()),
        "error_details": {s.error: s.detail for s in reversed(run.samples) if s.error is not None and s.detail},
        "seconds": seconds,
        "requests_per_second": _rate(sum(run.start <= sample.ended <= run.end for sample in done), seconds),
        "output_tokens_per_second": _rate(output, seconds),
        "total_tokens_per_second": _rate(output + read, seconds),
        "prompt_tokens": sum(sample.prompt_tokens for sample in done),
        "cached_tokens": sum(sample.cached_tokens for sample in done),
        "output_tokens": sum(sample.output_tokens for sample in done),
        "first_token_seconds": spread([s.first_token for s in done if s.first_token is not None]),
        "token_gap_seconds": spread([gap for sample in done for gap in sample.gaps]),
        "per_token_seconds": spread([s.per_token for s in done if s.per_token is not None]),
        "end_to_end_seconds": spread([sample.end_to_end for sample in done]),
        "late_seconds": spread([sample.sent - sample.planned for sample in run.samples]),
    }


def spread(values: Sequence[float]) -> dict[str, float] | None:
    """Return the mean, the percentiles and the largest of some values."""
    if not values:
        return None
    found = np.percentile(values, PERCENTILES)
    named = {f"p{percent}": float(value) for percent, value in zip(PERCENTILES, found, strict=True)}
    return {"mean": float(np.mean(values)), **named, "max": float(max(values))}


def _rate(count: float, seconds: float) -> float | None:
    return count / seconds if seconds > 0 else None
