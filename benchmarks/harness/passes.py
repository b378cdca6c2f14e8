"""The time of every pass that intaglio makes through ONNX Runtime in this process."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import onnxruntime

METHODS = ("run", "run_with_ort_values", "run_with_iobinding")


@dataclass(frozen=True)
class Pass:
    """The begin and end of a pass, in seconds of ``time.perf_counter``."""

    begin: float
    end: float

    @property
    def seconds(self) -> float:
        return self.end - self.begin


@contextmanager
def recorded() -> Iterator[list[Pass]]:
    """Record the passes made in the block, in order."""
    found: list[Pass] = []
    originals = {name: getattr(onnxruntime.InferenceSession, name) for name in METHODS}

    def timed(original: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            begin = time.perf_counter()
            try:
                return original(*arguments, **options)
            finally:
                found.append(Pass(begin, time.perf_counter()))

        return call

    try:
        for name, original in originals.items():
            setattr(onnxruntime.InferenceSession, name, timed(original))
        yield found
    finally:
        for name, original in originals.items():
            setattr(onnxruntime.InferenceSession, name, original)


def last(passes: list[Pass], count: int) -> list[Pass]:
    """Return the last ``count`` passes: the decode steps of a generation of ``count`` + 1 tokens.

    Raises:
        SystemExit: there are fewer, so that a step is not a pass.
    """
    if len(passes) <= count:
        raise SystemExit(
            f"{len(passes)} passes were recorded for {count} steps: some steps do not go through {METHODS}"
        )
    return passes[-count:]
