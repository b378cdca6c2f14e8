"""``intaglio inspect``: describe a checkpoint or an artifact."""

from pathlib import Path

import click

from ...artifact import MANIFEST, read_manifest
from ...errors import UnsupportedError, UsageError
from ...files.foreign_format import ADAPTER, foreign_format
from ...files.gguf_files import gguf_file
from ..inspection.artifact import describe_artifact
from ..inspection.description import Description
from ..inspection.weights import HEADER
from ..options import adapter_option, example, json_option
from ..show import print_facts, print_json, print_rows

DEFAULT_LENGTH = 4096
WINDOWED_LENGTHS = (1024, 4096, 16384, 65536)
"""The numbers of tokens for which the KV cache is computed: by default, and for a model with sliding layers."""


@click.command(
    short_help="Describe a checkpoint, an adapter or an artifact.",
    epilog=example(
        "intaglio inspect out",
        "intaglio inspect out --weights",
        "intaglio inspect ./checkpoint --context-length 8192 --json",
    ),
)
@click.argument("path", type=click.Path(path_type=Path))
@click.option(
    "--context-length", type=click.IntRange(min=1), metavar="N", help="Tokens for which the KV cache is computed."
)
@click.option("--weights", is_flag=True, help="List the weights of a quantized artifact.")
@adapter_option
@json_option
def command(path: Path, context_length: int | None, weights: bool, adapters: tuple[str, ...], as_json: bool) -> None:
    """Describe PATH, a checkpoint, an adapter or an artifact: family, task, sizes, precisions, windows, memory.

    Only the headers of the weights are read. The KV cache is that of one sequence; without --context-length it is
    computed for 4,096 tokens and the whole context, and for more lengths if the model has sliding layers. On a CPU,
    with target `ort`, sliding layers keep only their window.

    Of a checkpoint whose weights are quantized it also prints what `intaglio export` would do with them, and how large
    the artifact's weights would be in each precision; scales and zero points are read for that.

    --weights prints for each weight: path, elements, precision, block size, zero point (symmetric or asymmetric),
    method, accuracy level (4: int8 activations, 0: float activations), relative error, and estimated KL divergence in
    nats per token.
    """
    if (path / MANIFEST).exists():
        if adapters:
            raise UsageError(f"{path} is an artifact, and --adapter is for checkpoints; leave the option out")
        description = describe_artifact(path, read_manifest(path))
    elif (path / ADAPTER).is_file() and foreign_format(path) is not None and not weights and not adapters:
        _print_adapter(path, as_json)
        return
    elif (path / "config.json").exists() or gguf_file(path) is not None:
        from ..inspection.checkpoint import describe_checkpoint

        description = describe_checkpoint(path, adapters)
    else:
        if (foreign := foreign_format(path)) is not None:
            raise UnsupportedError(f"{path} {foreign}")
        reason = f"it has neither {MANIFEST} nor config.json" if path.is_dir() else "there is no such folder"
        raise UsageError(f"{path} is neither a checkpoint nor an artifact: {reason}; give the folder of one")
    lengths = _cache_lengths(description, context_length)
    if weights and not description.weights:
        raise UsageError(f"{path} is not quantized, and --weights lists quantized weights; leave the option out")
    if as_json:
        print_json(description.to_json(lengths))
    elif weights:
        print_rows(HEADER, [weight.to_row() for weight in description.weights])
    else:
        print_facts(description.to_lines(lengths))


def _print_adapter(path: Path, as_json: bool) -> None:
    from ..inspection.adapter import describe_adapter

    description = describe_adapter(path)
    if as_json:
        print_json(description.to_json())
    else:
        print_facts(description.to_lines())


def _cache_lengths(description: Description, asked: int | None) -> list[int]:
    """Return the numbers of tokens for which the KV cache is computed.

    Raises:
        UsageError: ``asked`` exceeds the model's context.
    """
    context = description.architecture.context_length
    if asked is None:
        sliding = description.windowed and any(description.architecture.layer_windows)
        usual = WINDOWED_LENGTHS if sliding else (DEFAULT_LENGTH,)
        return sorted({*(min(length, context) for length in usual), context})
    if asked > context:
        raise UsageError(
            f"--context-length {asked:,}: the context of {description.path} is {context:,} tokens; give at most that"
        )
    return [asked]
