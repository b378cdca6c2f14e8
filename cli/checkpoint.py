"""What a checkpoint folder says of itself, from its config and the headers of its weight files."""

from pathlib import Path

from .description import BITS, Description, group
from .extras import export_extra


def of_checkpoint(path: Path) -> Description:
    """Describe a checkpoint; the memory is that of the fp32 artifact which `export` makes of it by default.

    Raises:
        CheckpointError, UnsupportedError: as ``intaglio.models.checkpoint.Checkpoint``.
        DependencyError: torch is not installed.
    """
    with export_extra():
        from ..models.checkpoint import Checkpoint
    checkpoint = Checkpoint(path)
    config = checkpoint.config
    groups = group([(info.dtype, info.shape) for info in checkpoint.tensors.values()])
    return Description(
        path=str(path),
        kind="checkpoint",
        family=config.family,
        task=checkpoint.task,
        groups=groups,
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        num_attention_heads=config.num_attention_heads,
        num_key_value_heads=config.num_key_value_heads,
        head_dim=config.head_dim,
        layer_windows=config.layer_windows,
        context_length=config.context_length,
        labels=config.labels if checkpoint.task in ("text-classification", "token-classification") else (),
        runs_as="fp32",
        resident_bytes=sum(g.elements for g in groups.values()) * BITS["fp32"] // 8,
        cache_bits=BITS["fp32"] if checkpoint.task == "text-generation" else None,
        more={
            "architecture": checkpoint.architecture,
            "files": ", ".join(file.name for file in checkpoint.files),
            "embeddings": "tied" if config.tie_word_embeddings else "untied",
            "rope": config.rope.type,
        },
    )
