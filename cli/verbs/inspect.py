"""``intaglio inspect``: what a folder holds, a checkpoint or an artifact."""

from collections.abc import Iterator
from math import prod
from pathlib import Path

import click

from ...artifact import MANIFEST, Manifest, read_manifest
from ...contract import ACTIVATIONS, BITS
from ...errors import UsageError
from ..inspection.description import COMPUTED, Description, group
from ..inspection.weights import HEADER, bits_per_weight, estimated_kl, part_of, stored_bytes, weights_of
from ..options import example, json_option
from ..show import print_facts, print_json, print_rows

USUAL_LENGTH = 4096
SEVERAL_LENGTHS = (1024, 4096, 16384, 65536)


@click.command(
    short_help="Say what a checkpoint or an artifact is.",
    epilog=example(
        "intaglio inspect out",
        "intaglio inspect out --weights",
        "intaglio inspect ./checkpoint --context-length 8192 --json",
    ),
)
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--context-length", type=click.IntRange(min=1), metavar="N", help="Tokens to reckon the KV cache for.")
@click.option("--weights", is_flag=True, help="Of a quantized artifact: what became of every weight, a line each.")
@json_option
def command(path: Path, context_length: int | None, weights: bool, as_json: bool) -> None:
    """Say what PATH, a checkpoint or an artifact, is: family, task, sizes, precisions, windows, memory.

    Weights are not read, only their headers. The KV cache is that of one sequence; without --context-length it is
    given for 4,096 tokens and for the whole context, and where layers slide for lengths between and below. Sliding
    layers keep only their window on a CPU, with target `ort`.

    --weights prints the path of each weight, how many elements it has, its precision, block size, kind of zero, method
    and accuracy level (4: int8 activations, 0: float ones), the error as a share of the weight, and the damage, in nats
    per token, that it is estimated to do.
    """
    if (path / MANIFEST).exists():
        found = of_artifact(path, read_manifest(path))
    elif (path / "config.json").exists():
        from ..inspection.checkpoint import of_checkpoint

        found = of_checkpoint(path)
    else:
        what = "there is no such folder" if not path.is_dir() else f"it has neither {MANIFEST} nor config.json"
        raise UsageError(f"{path} is no checkpoint and no artifact: {what}; give the folder of one")
    lengths = _lengths(found, context_length, path)
    if weights and not found.weights:
        raise UsageError(f"{path} is not quantized, so there is nothing for --weights to list; leave it out")
    if as_json:
        print_json(found.to_json(lengths))
    elif weights:
        print_rows(HEADER, [weight.to_row() for weight in found.weights])
    else:
        print_facts(found.to_lines(lengths))


def of_artifact(path: Path, manifest: Manifest) -> Description:
    """What the manifest says; the files themselves are not opened."""
    model = manifest.model
    cache_bits = BITS[ACTIVATIONS[model.cache_dtype]]
    groups = group(_grouped(manifest))
    weights = weights_of(manifest)
    return Description(
        path=str(path),
        kind="artifact",
        family=manifest.family,
        task=manifest.task,
        groups=groups,
        vocab_size=model.vocab_size,
        hidden_size=model.hidden_size,
        num_attention_heads=model.num_attention_heads,
        num_key_value_heads=model.num_key_value_heads,
        head_dim=model.head_dim,
        layer_windows=model.layer_windows,
        context_length=model.context_length,
        labels=model.labels,
        runs_as=manifest.precision,
        resident_bytes=sum(g.bytes for g in groups.values()),
        cache_bits=cache_bits if manifest.task == "text-generation" else None,
        windowed=manifest.target == "ort",
        more={
            "target": manifest.target,
            "operators": manifest.operators,
            "source": f"{manifest.source.id} @ {manifest.source.revision or manifest.source.digest}",
            "tools": manifest.tools,
            "parity": manifest.parity.verdict,
        },
        weights=weights,
        bits_per_weight=bits_per_weight(manifest) if weights else None,
        kl=estimated_kl(manifest, weights),
    )


def _grouped(manifest: Manifest) -> Iterator[tuple[str, int, int]]:
    """The group, elements and bytes of each tensor."""
    for name, entry in manifest.tensors.items():
        part = part_of(name, manifest)
        kind = "" if entry.sources else f" {part}" if part else COMPUTED
        yield entry.precision + kind, prod(entry.shape), stored_bytes(entry, manifest.target)


def _lengths(found: Description, asked: int | None, path: Path) -> list[int]:
    """The lengths to reckon the cache for.

    Raises:
        UsageError: the model cannot hold as many tokens as were asked about.
    """
    context = found.context_length
    if asked is None:
        usual = SEVERAL_LENGTHS if found.windowed and any(found.layer_windows) else (USUAL_LENGTH,)
        return sorted({*(min(length, context) for length in usual), context})
    if asked > context:
        raise UsageError(
            f"--context-length {asked:,}: {path} is made for at most {context:,} tokens; ask for no more than that"
        )
    return [asked]
