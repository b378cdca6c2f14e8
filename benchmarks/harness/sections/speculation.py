"""Seconds of generation with and without speculation, and a comparison of the tokens.

``edit`` mostly copies its prompt, greedily; ``free`` is free text, sampled as the checkpoint's generation_config.json
says with one seed. Every mode runs the same prompt; ``auto`` is ``generate``'s default.
"""

import statistics
import time
from typing import Any

from ..engines.intaglio_runtime import GREEDY, Engine
from ..job import Job

NEW = 512
MODES: dict[str, dict[str, Any]] = {"without": {"speculate": False}, "with": {"speculate": True}, "auto": {}}
SAMPLED: dict[str, Any] = {"seed": 0, "eos_token_id": [], "stop": ()}


def measure(job: Job) -> dict[str, Any]:
    """Return, for ``edit`` and ``free``, the seconds of each mode, ``speedup`` over the mode without, and ``same``.

    ``decode`` is the speedup without the seconds of the prefill and the first token.
    """
    engine = Engine(job)
    new = job.settings.get("new", NEW)
    repeats = job.settings.get("repeats", 1)
    engine.generate([job.prompt("long", 128)], 8)
    figures: dict[str, Any] = {}
    for name, options in (("edit", GREEDY), ("free", SAMPLED)):
        prompt = job.prompt(name)
        begin = time.perf_counter()
        engine.model.generate(prompt, max_new_tokens=1, **options, **MODES["without"])
        first = time.perf_counter() - begin
        seconds: dict[str, list[float]] = {mode: [] for mode in MODES}
        tokens = {}
        for _ in range(repeats):
            for mode, chosen in MODES.items():
                begin = time.perf_counter()
                found = engine.model.generate(prompt, max_new_tokens=new, **options, **chosen)
                seconds[mode].append(time.perf_counter() - begin)
                tokens[mode] = found.token_ids
        taken = {mode: statistics.median(times) for mode, times in seconds.items()}
        figures[name] = {
            "prompt": len(prompt),
            "new": new,
            "seconds": taken,
            "first": first,
            "speedup": {mode: taken["without"] / taken[mode] for mode in ("with", "auto")},
            "decode": {mode: (taken["without"] - first) / (taken[mode] - first) for mode in ("with", "auto")},
            "same": tokens["without"] == tokens["with"] == tokens["auto"],
        }
    return figures
