"""The description of an artifact, from its manifest."""

from collections.abc import Iterator, Sequence
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from ...artifact import CalibrationText, Manifest, Source
from ...contract import ACTIVATIONS, BITS, has_cache
from .active import experts_of_artifact
from .description import COMPUTED, Description, group_tensors
from .text_files import text_facts
from .weights import bits_per_weight, estimated_kl, part_of, stored_bytes, stored_weights

if TYPE_CHECKING:
    from ...devices.runtimes import Support


def describe_artifact(path: Path, manifest: Manifest) -> Description:
    """Describe an artifact; its weights are not opened."""
    groups = group_tensors(_tensors(manifest))
    weights = stored_weights(manifest)
    experts = experts_of_artifact(path, manifest)
    return Description(
        path=str(path),
        kind="artifact",
        family=manifest.family,
        task=manifest.task,
        groups=groups,
        architecture=manifest.model,
        labels=manifest.model.labels,
        memory_precision=manifest.precision,
        resident_bytes=sum(group.bytes for group in groups.values()),
        cache_bits=BITS[ACTIVATIONS[manifest.model.cache_dtype]] if has_cache(manifest.task) else None,
        windowed=manifest.target == "ort",
        details={
            "target": manifest.target,
            "operators": manifest.operators,
            **({"experts": experts} if experts else {}),
            **text_facts(path, manifest.task),
            "source": f"{manifest.source.id} @ {manifest.source.revision or manifest.source.digest}",
            **({"adapters": adapters_in_words(manifest.source)} if manifest.source.adapters else {}),
            **({"calibration": calibration_in_words(manifest.calibration)} if manifest.calibration else {}),
            "tools": manifest.tools,
            "parity": manifest.parity.verdict,
        },
        weights=weights,
        bits_per_weight=bits_per_weight(manifest) if weights else None,
        kl=estimated_kl(manifest, weights),
        notes=manifest.notes,
        runtimes=_runtimes(path, manifest),
    )


def adapters_in_words(source: Source) -> str:
    """Return the adapters that a model was made with, each with its revision or digest and its weight."""
    return ", ".join(f"{one.id} @ {one.revision or one.digest} x {one.weight:g}" for one in source.adapters)


def calibration_in_words(texts: Sequence[CalibrationText]) -> str:
    """Return the names of calibration texts, each with the tokens that were read."""
    return ", ".join(f"{text.name} ({text.tokens:,} tokens)" for text in texts)


def _runtimes(path: Path, manifest: Manifest) -> "list[Support] | None":
    """Return what each runtime makes of the artifact; None if its graph cannot be read."""
    from ...devices.runtimes import supported

    try:
        return supported(path, manifest)
    except (OSError, ValueError):
        return None


def _tensors(manifest: Manifest) -> Iterator[tuple[str, int, int]]:
    """Yield the group, elements and bytes of each tensor."""
    for name, entry in manifest.tensors.items():
        part = part_of(name, manifest)
        suffix = "" if entry.sources else f" {part}" if part else COMPUTED
        yield entry.precision + suffix, prod(entry.shape), stored_bytes(entry, manifest.target)
