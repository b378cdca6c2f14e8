"""Loading, first token, decode and peak memory.

``load`` is the time until the model is ready, tokenizer included and imports not, with the files in the page cache.
``first`` is a call of ``generate`` for one token; decode is (a call for 1 + STEPS tokens less a call for one) / STEPS,
each with its own prompt, and the median of ``repeats``, since the machine's memory changes its speed within seconds.
Every length runs once before it is timed, because buffers grow and kernels are prepared at first use.
"""

import statistics
import time
from typing import Any

from .. import memory
from ..engines import Engine, import_engine
from ..job import Job, varied

PROMPT, STEPS = 128, 127
REPEATS = 3
LONG = (512, 2048, 8192)


def measure(job: Job) -> dict[str, Any]:
    """Return ``load`` and ``first`` in s, ``decode`` in tokens/s, memory in MB (``imports``: before loading)."""
    engine_class = import_engine(job.tool)
    figures: dict[str, Any] = {"imports": memory.resident()}
    begin = time.perf_counter()
    engine = engine_class(job)
    figures["load"] = time.perf_counter() - begin
    figures["version"] = engine.version
    clock = Clock(engine, job)
    clock.seconds(PROMPT, 8)
    repeats = range(job.settings.get("repeats", REPEATS))
    firsts = [clock.seconds(PROMPT, 1) for _ in repeats]
    wholes = [clock.seconds(PROMPT, 1 + STEPS) for _ in repeats]
    figures["peak"] = memory.peak()
    figures["decode"] = STEPS / statistics.median(whole - first for whole, first in zip(wholes, firsts, strict=True))
    figures["first"] = {str(PROMPT): statistics.median(firsts)}
    lengths = job.settings.get("long", LONG)
    for length in lengths:
        clock.seconds(length, 1)
        figures["first"][str(length)] = clock.seconds(length, 1)
    if LONG[-1] in lengths:
        figures["peak_long"] = memory.peak()
    return figures


class Clock:
    """Times calls of ``generate``, each after prompts with a first token of their own."""

    def __init__(self, engine: Engine, job: Job) -> None:
        self._engine, self._job, self._count = engine, job, 0

    def seconds(self, prompt: int, new: int, size: int = 1) -> float:
        """Return the seconds for ``new`` tokens after each of ``size`` prompts.

        Raises:
            SystemExit: the tool returned another number of tokens.
        """
        ids = self._job.prompt("long", prompt)
        prompts = [varied(ids, self._count + index) for index in range(size)]
        self._count += size
        begin = time.perf_counter()
        found = self._engine.generate(prompts, new)
        taken = time.perf_counter() - begin
        if [len(tokens) for tokens in found] != [new] * size:
            raise SystemExit(
                f"{self._job.tool} returned {[len(t) for t in found]} tokens, not {new} for each of {size} prompts"
            )
        return taken
