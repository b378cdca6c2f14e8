"""The description of a checkpoint, from its config and the headers of its weight files."""

from collections.abc import Sequence
from math import prod
from pathlib import Path

from ...extras import export_extra
from .description import Description, group_tensors
from .text_files import text_facts

BITS = {"F64": 64, "F32": 32, "F16": 16, "BF16": 16, "I64": 64, "I32": 32, "I8": 8, "U8": 8, "BOOL": 8}
"""Bits of an element, by dtype in a safetensors header."""


def describe_checkpoint(path: Path, adapters: Sequence[str] = ()) -> Description:
    """Describe a checkpoint; the memory is that of the fp32 artifact that `export` writes by default.

    Args:
        adapters: what `--adapter` gives; the description is that of the merged model.

    Raises:
        CheckpointError, UnsupportedError: as ``intaglio.models.checkpoint.Checkpoint``.
        DependencyError: torch is not installed.
    """
    with export_extra():
        from ...models.adapters.given import find_adapters, parse_adapter
        from ...models.checkpoint import Checkpoint
        from ...models.parameters import note_on_left_out
        from ...models.reading.options import ReadOptions
    # What export asks about is described, and not asked.
    merged = find_adapters([parse_adapter(text) for text in adapters])
    checkpoint = Checkpoint(path, ReadOptions(describe=True, adapters=merged))
    config = checkpoint.config
    tensors = [(info.dtype, prod(info.shape)) for info in checkpoint.tensors.values()]
    groups = group_tensors((dtype, number, number * BITS.get(dtype, 0) // 8) for dtype, number in tensors)
    return Description(
        path=str(path),
        kind="checkpoint",
        family=config.family,
        task=checkpoint.task,
        groups=groups,
        architecture=config,
        labels=config.labels if checkpoint.task in ("text-classification", "token-classification") else (),
        memory_precision="fp32",
        resident_bytes=sum(g.elements for g in groups.values()) * BITS["F32"] // 8,
        cache_bits=BITS["F32"] if checkpoint.task == "text-generation" else None,
        windowed=True,
        details={
            "architecture": checkpoint.architecture,
            "files": ", ".join(file.name for file in checkpoint.files),
            **({"adapters": ", ".join(f"{one.id} x {one.weight:g}" for one in merged)} if merged else {}),
            "embeddings": "tied" if config.tie_word_embeddings else "untied",
            "rope": config.rope.type,
            **text_facts(checkpoint.text_folder, checkpoint.task),
        },
        notes=[note for note in (*checkpoint.notes, note_on_left_out(checkpoint, checkpoint.task)) if note is not None],
    )
