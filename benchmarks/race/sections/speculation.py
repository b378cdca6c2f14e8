"""Generation with and without speculation: seconds, and whether the tokens are the same.

``edit`` is copy-heavy and greedy; ``free`` is free text, drawn as the checkpoint's generation_config.json says, by one
seed. Every variant runs the same prompt; ``auto`` is what ``generate`` does when it is told nothing.
"""

import statistics
import time
from typing import Any

from ..engines.own import GREEDY, Engine
from ..job import Job

NEW = 512
VARIANTS = {"without": {"speculate": False}, "with": {"speculate": True}, "auto": {}}
DRAWN: dict[str, Any] = {"seed": 0, "eos_token_id": [], "stop": ()}


def measure(job: Job) -> dict[str, Any]:
    """For ``edit`` and ``free``: seconds of each variant, ``speedup`` of the two others, ``same``.

    ``decode`` is the speedup without the seconds of the prompt and its first token.
    """
    engine = Engine(job)
    new = job.settings.get("new", NEW)
    repeats = job.settings.get("repeats", 1)
    engine.generate([job.prompt("long", 128)], 8)
    figures: dict[str, Any] = {}
    for name, options in (("edit", GREEDY), ("free", DRAWN)):
        prompt = job.prompt(name)
        begin = time.perf_counter()
        engine.model.generate(prompt, max_new_tokens=1, **options, **VARIANTS["without"])
        first = time.perf_counter() - begin
        seconds: dict[str, list[float]] = {variant: [] for variant in VARIANTS}
        tokens = {}
        for _ in range(repeats):
            for variant, chosen in VARIANTS.items():
                begin = time.perf_counter()
                found = engine.model.generate(prompt, max_new_tokens=new, **options, **chosen)
                seconds[variant].append(time.perf_counter() - begin)
                tokens[variant] = found.token_ids
        taken = {variant: statistics.median(times) for variant, times in seconds.items()}
        figures[name] = {
            "prompt": len(prompt),
            "new": new,
            "seconds": taken,
            "first": first,
            "speedup": {variant: taken["without"] / taken[variant] for variant in ("with", "auto")},
            "decode": {variant: (taken["without"] - first) / (taken[variant] - first) for variant in ("with", "auto")},
            "same": tokens["without"] == tokens["with"] == tokens["auto"],
        }
    return figures
