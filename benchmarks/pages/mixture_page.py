"""The generated part of mixture.md: speed, and the bytes that a token reads."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from ..artifacts.mixture_bytes import bytes_per_token
from ..artifacts.sizes import disk_bytes
from ..artifacts.store import ArtifactStore
from ..artifacts.variants import Variant
from ..harness.records import Records
from . import tables
from .generated import fill
from .numbers import markdown, middle, shown
from .runtime_page import machine
from .tables import VariantFacts

PART_ORDER = ("experts", "shared expert", "attention", "LM head", "routers", "MLP", "other")


def body(
    records: Records,
    variants: Sequence[Variant],
    store: ArtifactStore,
    shape: str,
    threads: int,
    lengths: Sequence[int],
) -> str:
    """Return the tables of the variants that were measured, or made; ``shape`` describes the model in words."""
    parts = {variant.name: bytes_per_token(store.path(variant)) for variant in variants}
    facts = [
        VariantFacts(
            variant.name,
            variant.tool,
            disk=disk_bytes(variant, store.path(variant)),
            step=sum(parts[variant.name].values()),
        )
        for variant in variants
    ]
    measured = [fact for fact in facts if records.of("speed", fact.name)]
    text = [f"- {shape}", machine(records, measured, threads)]
    if measured:
        text += ["### Speed", tables.speed(records, measured, lengths)]
    if len(measured) > 1:
        text.append(f"Medians of the ratios within each round; above 1 is better for {measured[0].name}.")
        text.append(tables.against(records, measured, measured[0].name, lengths))
    text += ["### What a token reads", reading(records, facts, parts)]
    return "\n\n".join(text)


def reading(records: Records, facts: Sequence[VariantFacts], parts: Mapping[str, Mapping[str, int]]) -> str:
    """Tabulate the MB of weights that a token reads, by part, and the GB/s at which decode reads them."""
    names = [part for part in PART_ORDER if any(part in of_variant for of_variant in parts.values())]
    head = ["tool", "variant", "disk MB", *(f"{name}, MB" for name in names), "a token, MB", "decode reads, GB/s"]
    rows = []
    for fact in facts:
        speed = middle(records.of(fact.section, fact.name), "decode")
        cells = [fact.tool, fact.name, f"{fact.disk / 1e6:,.0f}"]
        cells += [_megabytes(parts[fact.name].get(name, 0)) for name in names]
        cells += [_megabytes(fact.step), shown(speed, ".1f", fact.step / 1e9)]
        rows.append(cells)
    return markdown(head, rows, left=2)


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f}" if size >= 1e6 else f"{size / 1e6:.3f}"


def write(folder: Path, text: str) -> None:
    """Fill the generated block of ``folder/mixture.md``."""
    folder.mkdir(parents=True, exist_ok=True)
    fill(folder / "mixture.md", "Mixtures of experts", "mixture.py", text)
