"""Open the artifact's source, and check that both belong together."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from ..artifact import MANIFEST, Manifest, verify
from ..errors import ArtifactError, UsageError
from ..hub import resolve
from ..machine import available_memory
from ..models.adapters.given import Adapter, AdapterFolder, find_adapters
from ..models.checkpoint import PATTERNS, Checkpoint
from ..models.digest import Digest
from ..models.reading.options import ReadOptions

Progress = Callable[[str, int, int], None]
"""Called with (stage, done, total). The stages are files, digest and audit, in bytes of the artifact, of the source and
of the weights, and layers (of the source), cases and operators."""

REPACKED = 1.4
"""Memory of a loaded artifact over the size of its weights: measured 1.4 for fp32, 1.3 for int4."""


def open_source(
    folder: Path,
    manifest: Manifest,
    source: str | Path | None,
    revision: str | None,
    adapters: Sequence[Adapter | str | Path] = (),
) -> tuple[Checkpoint, str]:
    """Return the checkpoint, with the adapters that the artifact was made with, and its name for the report.

    Raises:
        UsageError: no source is given and the manifest names no hub id, or the source is another model.
    """
    if source is None:
        if manifest.source.revision is None:
            raise UsageError(
                f"{folder} was made from the folder {manifest.source.id!r}, and a manifest does not say where that is; "
                "give it as --source"
            )
        source, revision = manifest.source.id, manifest.source.revision
    located = resolve(source, revision=revision, patterns=PATTERNS)
    if (located.folder / MANIFEST).exists():
        raise UsageError(f"{source} is an artifact; give the checkpoint that it was made from as --source")
    # The artifact says how the checkpoint was read.
    merged = source_adapters(folder, manifest, adapters)
    options = ReadOptions(manifest.model.attention, ignore_auto_map=True, ignore_adapter=True, adapters=merged)
    checkpoint = Checkpoint(located.folder, options)
    config, facts = checkpoint.config, manifest.model
    for what, theirs, ours in (
        ("family", config.family, manifest.family),
        ("vocab_size", config.vocab_size, facts.vocab_size),
        ("hidden_size", config.hidden_size, facts.hidden_size),
        ("num_hidden_layers", config.num_hidden_layers, facts.num_hidden_layers),
        ("num_attention_heads", config.num_attention_heads, facts.num_attention_heads),
        ("num_key_value_heads", config.num_key_value_heads, facts.num_key_value_heads),
        ("head_dim", config.head_dim, facts.head_dim),
    ):
        if theirs != ours:
            raise UsageError(
                f"{source} is another model than {folder} was made from: its {what} is {theirs}, the artifact's "
                f"{ours}; give the checkpoint of {manifest.source.id} as --source"
            )
    return checkpoint, str(source)


def source_adapters(
    folder: Path, manifest: Manifest, given: Sequence[Adapter | str | Path]
) -> tuple[AdapterFolder, ...]:
    """Return the adapters that an artifact was made with, each with the weight that the manifest says.

    Args:
        given: where they are, in any order; without any, those that the manifest names on the hub.

    Raises:
        UsageError: one is missing, or another one is given.
    """
    recorded = manifest.source.adapters
    if not given and recorded:
        local = [one.id for one in recorded if one.revision is None]
        if local:
            raise UsageError(
                f"{folder} was made with the adapter {local[0]!r}, a folder, and a manifest does not say where that "
                "is; give it as --adapter"
            )
        given = [f"{one.id}@{one.revision}" for one in recorded]
    found = {adapter.record().digest: adapter for adapter in find_adapters(given)}
    wanted = {one.digest: one for one in recorded}
    for digest, adapter in found.items():
        if digest not in wanted:
            named = ", ".join(one.id for one in recorded) or "none"
            raise UsageError(
                f"{folder} was not made with the adapter {adapter.id}, whose digest is {digest[:12]}… (its adapters: "
                f"{named}); give those that it was made with as --adapter"
            )
        if adapter.weight not in (1, wanted[digest].weight):
            raise UsageError(
                f"{folder} was made with the adapter {adapter.id} at the weight {wanted[digest].weight:g}, and not "
                f"{adapter.weight:g}; leave the weight out"
            )
    for digest, one in wanted.items():
        if digest not in found:
            raise UsageError(
                f"{folder} was made with the adapter {one.id} too (digest {digest[:12]}…); give it as --adapter"
            )
    return tuple(replace(found[one.digest], weight=one.weight) for one in recorded)


def memory_shortage(folder: Path, manifest: Manifest) -> str | None:
    """Return why there is too little memory to run the artifact; None if there is enough, or if it is unknown.

    ONNX Runtime repacks weights as it loads them. Without this check the process might be killed later.
    """
    entry, free = manifest.files.get(manifest.data), available_memory()
    needed = REPACKED * entry.size if entry is not None else 0
    if free is None or needed <= free:
        return None
    return (
        f"{folder}: running it takes about {needed / 1e9:.1f} GB of memory, and {free / 1e9:.1f} GB are free; "
        "check it on a larger machine"
    )


def verify_files(folder: Path, manifest: Manifest, report: Progress) -> None:
    """Check the artifact's files against the manifest.

    Raises:
        ArtifactError: a file differs from the manifest.
    """
    total, done = sum(entry.size for entry in manifest.files.values()), 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        report("files", done, total)

    problems = verify(folder, manifest, advance)
    if problems:
        raise ArtifactError(f"{folder} is damaged: {'; '.join(problems)}; copy it again, or export the model again")


def verify_source(checkpoint: Checkpoint, manifest: Manifest, name: str, report: Progress) -> None:
    """Check the checkpoint's digest against the manifest.

    Raises:
        UsageError: the artifact was made from other files.
    """
    with Digest(checkpoint) as digest:
        found = digest.wait(lambda _, done, total: report("digest", done, total))
    if found != manifest.source.digest:
        raise UsageError(
            f"{name} has the digest {found[:12]}…, and the artifact was made from {manifest.source.id} with "
            f"{manifest.source.digest[:12]}…: its config or its weights are others; give the same checkpoint "
            "as --source"
        )
