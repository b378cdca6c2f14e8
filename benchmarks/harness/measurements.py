"""The measurements of each section: which variants take part, with which settings, in how many rounds."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..artifacts.variants import ALL, BATCHED, INT4, TRANSFORMERS, Variant
from .records import Key
from .sections import batches, speed

LIMITED = "limited"  # speed, with older vector instructions
SECTIONS = ("speed", LIMITED, "batches", "share", "profile", "growth", "speculation", "classification", "quality")
ONCE = {"profile", "growth", "quality"}  # take minutes each and do not compare times between variants
STEPS = 32  # at each context
CONTEXTS = (512, 4096, 16384, 32768)
SERIES = (512, 1024)  # context and steps of the run whose every step is recorded
SENTENCES, BATCH = 512, 16
MACHINE = "machine"
CLASSIFIER = "sst2"
SORTED = "sorted"
INT8_CACHE = " int8"  # follows a context measured with an int8 KV cache


@dataclass(frozen=True)
class Measurement:
    """One process: ``variant`` runs ``section``.

    ``machine`` names a section that measures the machine instead, in the variant's rounds.
    """

    section: str
    variant: Variant
    case: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    machine: str = ""

    def key(self, number: int) -> Key:
        """Return the key of the record in a round."""
        name = MACHINE if self.machine else self.variant.name
        return Key(self.machine or self.section, name, self.case, number)


def rounds_of(section: str, count: int) -> int:
    """Return the number of rounds of a section when ``count`` are asked for."""
    return min(count, 1) if section in ONCE else count


def classifier(variant: Variant) -> Variant:
    """Return the variant of the classifier that is made in the same way."""
    name = f"{variant.name}-{CLASSIFIER}"
    return Variant(name, variant.method, variant.bits, variant.block, variant.tool, options=variant.options)


def measurements(
    section: str,
    variants: list[Variant],
    checkpoint: Path,
    sentences: Path,
    reference: Path,
    longest: int = speed.LONG[-1],
) -> list[Measurement]:
    """Return one round of a section.

    Args:
        reference: quality_reference.py's folder.
        longest: the most tokens of a prompt of ``speed`` and ``limited``.
    """
    variants = [variant for variant in variants if bool(variant.instructions) == (section == LIMITED)]
    named = {variant.name: variant for variant in variants}
    own = [variant for variant in variants if variant.tool == "intaglio"]
    first = [named[INT4]] if INT4 in named else own[:1]
    config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    positions = int(config["max_position_embeddings"])
    settings: dict[str, Any]
    match section:
        case "speed" | "limited":
            settings = {"long": [length for length in speed.LONG if length < positions and length <= longest]}
            machine = [Measurement(section, variant, machine="bandwidth") for variant in first if section == "speed"]
            return machine + [Measurement(section, variant, settings=settings) for variant in variants]
        case "batches":
            chosen = [named[name] for name in BATCHED if name in named]
            return [Measurement(section, variant, settings={"sizes": list(batches.BATCH_SIZES)}) for variant in chosen]
        case "share" | "profile" | "speculation":
            return [Measurement(section, variant) for variant in first]
        case "growth":
            return [one for variant in first for one in _growth(variant, positions)]
        case "classification":
            settings = {"texts": str(sentences), "count": SENTENCES, "batch": BATCH}
            found = [Measurement(section, classifier(variant), settings=settings) for variant in own]
            if TRANSFORMERS.name in named:
                theirs = classifier(ALL[TRANSFORMERS.name])
                found.append(Measurement(section, theirs, settings=settings | {"sort": False}))
                found.append(Measurement(section, theirs, SORTED, settings | {"sort": True}))
            return found
        case _:
            settings = {"reference": str(reference)}
            return [Measurement(section, variant, settings=settings) for variant in variants if variant != TRANSFORMERS]


def _growth(variant: Variant, positions: int) -> list[Measurement]:
    contexts = sorted({min(context, positions - STEPS - 1) for context in CONTEXTS})
    found = [Measurement("growth", variant, str(n), {"context": n, "steps": STEPS, "keep": False}) for n in contexts]
    found += [
        Measurement(
            "growth", variant, f"{n}{INT8_CACHE}", {"context": n, "steps": STEPS, "keep": False, "kv_cache": "int8"}
        )
        for n in contexts[1:]
    ]
    context, steps = SERIES
    settings = {"context": context, "steps": min(steps, positions - context - 1), "keep": True}
    return found + ([Measurement("growth", variant, "series", settings)] if settings["steps"] > 0 else [])
