"""Seconds of generation with and without speculation, a comparison of the tokens, and what passes cost.

``edit`` mostly copies its prompt, greedily; ``free`` is free text, sampled as the checkpoint's generation_config.json
says with one seed. Every mode runs the same prompt; ``auto`` is ``generate``'s default. ``again`` is a request that a
scheduler gets twice, ``structured`` a list of records by a JSON schema, and ``costs`` are those of
``runtime/generation/guesses/pass_cost.py``.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from intaglio.runtime import Generation, TextGenerator
from intaglio.runtime.decoding.decoder import open_decoder

from ..engines.intaglio_runtime import GREEDY, Engine
from ..job import Job

NEW = 512
MODES: dict[str, dict[str, Any]] = {"without": {"speculate": False}, "with": {"speculate": True}, "auto": {}}
SAMPLED: dict[str, Any] = {"seed": 0, "eos_token_id": [], "stop": ()}
RECORD: dict[str, Any] = {
    "type": "object",
    "properties": {
        "title": {"type": "string", "maxLength": 40},
        "year_of_publication": {"type": "integer", "minimum": 1500, "maximum": 2026},
        "in_print": {"type": "boolean"},
        "genre": {"enum": ["novel", "poetry", "drama", "essay"]},
    },
    "required": ["title", "year_of_publication", "in_print", "genre"],
    "additionalProperties": False,
}
SCHEMA = {"type": "array", "items": RECORD, "minItems": 4, "maxItems": 4}
PASSES = (2, 4, 8, 16)
CONTEXTS = (128, 2048)


def measure(job: Job) -> dict[str, Any]:
    """Return, for ``edit`` and ``free``, the seconds of each mode, ``speedup`` over the mode without, and ``same``.

    ``decode`` is the speedup without the seconds of the prefill and the first token. ``again`` and ``structured`` have
    seconds, tokens and ``same``; ``costs`` has decode steps by tokens of the context and of the pass.
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
        taken, tokens = _modes(engine.model, prompt, repeats, {"max_new_tokens": new, **options})
        figures[name] = {
            "prompt": len(prompt),
            "new": new,
            "seconds": taken,
            "first": first,
            "speedup": {mode: taken["without"] / taken[mode] for mode in ("with", "auto")},
            "decode": {mode: (taken["without"] - first) / (taken[mode] - first) for mode in ("with", "auto")},
            "same": tokens["without"] == tokens["with"] == tokens["auto"],
        }
    figures["again"] = _again(engine.model, job.prompt("free"), {"max_new_tokens": new, **SAMPLED})
    engine.model.prepare_constraints()
    options = {"max_new_tokens": new, "json_schema": SCHEMA, "seed": 0}
    taken, tokens = _modes(engine.model, job.prompt("free"), repeats, options)
    figures["structured"] = {
        "new": len(tokens["without"]),
        "seconds": taken,
        "speedup": {mode: taken["without"] / taken[mode] for mode in ("with", "auto")},
        "same": tokens["without"] == tokens["with"] == tokens["auto"],
    }
    lengths = [length for length in CONTEXTS if length + max(PASSES) <= len(job.prompt("long"))]
    figures["costs"] = {str(length): _costs(engine.model, job.prompt("long", length)) for length in lengths}
    return figures


def _modes(
    model: TextGenerator, prompt: list[int], repeats: int, options: dict[str, Any]
) -> tuple[dict[str, float], dict[str, tuple[int, ...]]]:
    """Return the median seconds and the tokens of each mode."""
    seconds: dict[str, list[float]] = {mode: [] for mode in MODES}
    tokens = {}
    for _ in range(repeats):
        for mode, chosen in MODES.items():
            begin = time.perf_counter()
            tokens[mode] = model.generate(prompt, **options, **chosen).token_ids
            seconds[mode].append(time.perf_counter() - begin)
    return {mode: statistics.median(times) for mode, times in seconds.items()}, tokens


def _again(model: TextGenerator, prompt: list[int], options: dict[str, Any]) -> dict[str, Any]:
    """Return the seconds of a request to a scheduler, ``first`` and ``second`` time, and whether both are the same."""
    with model.scheduler(slots=1, max_length=len(prompt) + int(options["max_new_tokens"])) as scheduler:
        seconds, results = [], []
        for _ in range(2):
            begin = time.perf_counter()
            scheduler.submit(prompt, **options)
            result: Generation | None = None
            while scheduler.busy:
                for event in scheduler.step():
                    result = event.result or result
            seconds.append(time.perf_counter() - begin)
            results.append(result)
    return {
        "new": options["max_new_tokens"],
        "first": seconds[0],
        "second": seconds[1],
        "same": results[0] == results[1],
    }


def _costs(model: TextGenerator, prompt: list[int], repeats: int = 9) -> dict[str, float]:
    """Return the milliseconds of a ``step`` after a prompt, and the steps that passes over several tokens cost."""
    size = len(prompt)
    decoder = open_decoder(model.session, 1, size, size + max(PASSES))
    tokens = np.array(prompt)
    decoder.prefill(0, tokens)

    def timed(run: Callable[[], object]) -> float:
        begin = time.perf_counter()
        run()
        taken = time.perf_counter() - begin
        decoder.rollback(0, size)
        return taken

    def passing(count: int) -> Callable[[], object]:
        return lambda: decoder.extend(0, tokens[:count], keep=count)

    ways = {1: lambda: decoder.step(tokens[:1]), **{count: passing(count) for count in PASSES}}
    seconds: dict[int, list[float]] = {count: [] for count in ways}
    for _ in range(repeats + 1):
        for count, run in ways.items():
            seconds[count].append(timed(run))
    middle = {count: statistics.median(times[1:]) for count, times in seconds.items()}
    return {"step": middle[1] * 1e3, **{str(count): middle[count] / middle[1] for count in PASSES}}
