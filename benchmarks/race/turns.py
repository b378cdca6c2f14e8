"""The turns of each section: who runs what, and how many rounds are worth it."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rows import Row

from .contenders import ALL, BATCHED, OURS, TRANSFORMERS
from .records import Key
from .sections import batches, speed

SECTIONS = ("speed", "batches", "share", "profile", "growth", "speculation", "classification", "quality")
ONCE = {"profile", "growth", "quality"}  # minutes each, and not a race
STEPS = 32  # at each context
CONTEXTS = (512, 4096, 16384, 32768)
SERIES = (512, 1024)  # context and steps of the run whose every step is kept
SENTENCES, BATCH = 512, 16
MACHINE = "machine"
HEADS = "sst2"  # the classifiers are rows of their own, made from a checkpoint with a head
SORTED = "sorted"
INT8 = " int8"  # behind a context: with a KV cache of int8


@dataclass(frozen=True)
class Turn:
    """One process: ``row`` runs ``section``, which is measured as ``name`` and ``case``."""

    section: str
    row: Row
    case: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    measured: str = ""

    def key(self, number: int) -> Key:
        return Key(self.measured or self.section, MACHINE if self.measured else self.row.name, self.case, number)


def rounds_of(section: str, count: int) -> int:
    """How many rounds a section gets where ``count`` are asked for."""
    return min(count, 1) if section in ONCE else count


def classifier(row: Row) -> Row:
    """The row of the classifier that is made as ``row`` is."""
    return Row(f"{row.name}-{HEADS}", row.method, row.bits, row.block, row.tool, options=row.options)


def turns(section: str, rows: list[Row], checkpoint: Path, sentences: Path, cache: Path) -> list[Turn]:
    """A round of a section, for those of its contenders that are among ``rows``."""
    named = {row.name: row for row in rows}
    ours = [named[OURS]] if OURS in named else [row for row in rows if row.tool == "intaglio"][:1]
    positions = int(json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))["max_position_embeddings"])
    match section:
        case "speed":
            lengths = [length for length in speed.LONG if length < positions]
            machine = [Turn(section, ours[0], measured="bandwidth")] if ours else []
            return machine + [Turn(section, row, settings={"long": lengths}) for row in rows]
        case "batches":
            chosen = [named[name] for name in BATCHED if name in named]
            return [Turn(section, row, settings={"rows": list(batches.ROWS)}) for row in chosen]
        case "share" | "profile" | "speculation":
            return [Turn(section, row) for row in ours]
        case "growth":
            contexts = sorted({min(context, positions - STEPS - 1) for context in CONTEXTS})
            context, steps = SERIES
            series = {"context": context, "steps": min(steps, positions - context - 1), "keep": True}
            return [
                *(
                    Turn(section, row, str(n), {"context": n, "steps": STEPS, "keep": False})
                    for row in ours
                    for n in contexts
                ),
                *(
                    Turn(section, row, f"{n}{INT8}", {"context": n, "steps": STEPS, "keep": False, "kv_cache": "int8"})
                    for row in ours
                    for n in contexts[1:]
                ),
                *(Turn(section, row, "series", series) for row in ours if series["steps"] > 0),
            ]
        case "classification":
            settings = {"texts": str(sentences), "count": SENTENCES, "batch": BATCH}
            own = [classifier(row) for row in rows if row.tool == "intaglio"]
            theirs = [classifier(ALL[TRANSFORMERS.name])] if TRANSFORMERS.name in named else []
            return [
                *(Turn(section, row, settings=settings) for row in own),
                *(Turn(section, row, settings=settings | {"sort": False}) for row in theirs),
                *(Turn(section, row, SORTED, settings | {"sort": True}) for row in theirs),
            ]
        case _:
            return [Turn(section, row, settings={"cache": str(cache)}) for row in rows if row.tool != "transformers"]
