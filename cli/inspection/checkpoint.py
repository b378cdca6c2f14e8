"""The description of a checkpoint, from its config and the headers of its weight files."""

from collections.abc import Iterator, Sequence
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from ...extras import export_extra
from .active import Mixture, describe
from .description import Description, group_tensors
from .quantized import AS_IT_IS, stored_formats
from .text_files import text_facts

if TYPE_CHECKING:
    from ...models.checkpoint import Checkpoint

BITS = {"F64": 64, "F32": 32, "F16": 16, "BF16": 16, "I64": 64, "I32": 32, "I8": 8, "U8": 8, "BOOL": 8}
"""Bits of an element, by dtype in a safetensors header."""


def describe_checkpoint(path: Path, adapters: Sequence[str] = ()) -> Description:
    """Describe a checkpoint; the memory is that of the artifact that `export` writes by default.

    Args:
        adapters: what `--adapter` gives; the description is that of the merged model.

    Raises:
        CheckpointError, UnsupportedError: as ``intaglio.models.checkpoint.Checkpoint``.
        DependencyError: torch is not installed.
    """
    with export_extra():
        from ...models.adapters.given import find_adapters, parse_adapter
        from ...models.checkpoint import Checkpoint
        from ...models.loading.parameters import note_on_left_out
        from ...models.reading.options import ReadOptions
    # What export asks about is described, and not asked.
    merged = find_adapters([parse_adapter(text) for text in adapters])
    checkpoint = Checkpoint(path, ReadOptions(describe=True, adapters=merged))
    config = checkpoint.config
    groups = group_tensors(_tensors(checkpoint))
    stored = stored_formats(checkpoint)
    precision, resident = "fp32", sum(group.elements for group in groups.values()) * BITS["F32"] // 8
    if stored is not None and stored.carried and stored.precision is not None:
        precision, resident = stored.precision, stored.sizes[AS_IT_IS]
    return Description(
        path=str(path),
        kind="checkpoint",
        family=config.family,
        task=checkpoint.task,
        groups=groups,
        architecture=config,
        labels=config.labels if checkpoint.task in ("text-classification", "token-classification") else (),
        memory_precision=precision,
        resident_bytes=resident,
        cache_bits=BITS["F32"] if checkpoint.task == "text-generation" else None,
        windowed=True,
        details={
            "architecture": checkpoint.architecture,
            "files": ", ".join(file.name for file in checkpoint.files),
            **({"adapters": ", ".join(f"{one.id} x {one.weight:g}" for one in merged)} if merged else {}),
            "embeddings": "tied" if config.tie_word_embeddings else "untied",
            "rope": config.rope.type,
            **({"experts": _experts(checkpoint)} if config.experts is not None else {}),
            **text_facts(checkpoint.text_folder, checkpoint.task),
        },
        notes=[note for note in (*checkpoint.notes, note_on_left_out(checkpoint, checkpoint.task)) if note is not None],
        stored=stored,
    )


def _experts(checkpoint: "Checkpoint") -> dict[str, int]:
    """Return the sizes of the mixtures, and how many parameters compute a token."""
    experts = checkpoint.config.experts
    assert experts is not None
    sizes = {name: prod(info.shape) for name, info in checkpoint.tensors.items()}
    return describe(Mixture(sum(experts.layers), experts.count, experts.per_token), sizes)


def _tensors(checkpoint: "Checkpoint") -> Iterator[tuple[str, int, int]]:
    """Yield the format or dtype, elements and stored bytes of each tensor."""
    for name, info in checkpoint.tensors.items():
        number, weight = prod(info.shape), checkpoint.quantized.get(name)
        if weight is not None:
            yield weight.format, number, weight.stored_bytes
        else:
            yield info.dtype, number, number * BITS.get(info.dtype, 0) // 8
