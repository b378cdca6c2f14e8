"""``intaglio quantize``: turn a checkpoint into an artifact with int4 or int8 weights."""

from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from ...artifact import FLOAT_PRECISIONS, FloatPrecision, Manifest
from ...extras import export_extra
from ..dry_run import dry_run as print_estimate
from ..making import make_artifact
from ..options import (
    Making,
    accuracy_level_option,
    bits_option,
    calibration_options,
    dry_run_option,
    example,
    json_option,
    making_options,
)
from ..progress import Report
from ..sizes import parse_size

if TYPE_CHECKING:
    from ...exporter.quantize.options import AccuracyLevel, Kept, Method, QuantizedPrecision

# Copies of the exporter's constants, whose import would load torch; a test compares them.
METHODS = ("auto", "rtn", "gptq", "awq", "smoothquant")
QUANTIZED = ("int4", "int8")
BLOCK_SIZES = (16, 32, 64, 128, 256)


def parse_keep(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """Return the precision for each pattern, from values ``PATTERN=PRECISION``.

    Raises:
        click.BadParameter: a value has another form.
    """
    precisions: dict[str, str] = {}
    for value in values:
        pattern, _equals, precision = value.rpartition("=")
        if not pattern or not precision:
            raise click.BadParameter(f"{value!r} is not PATTERN=PRECISION; write it like 'lm_head=float'.")
        precisions.pop(pattern, None)  # the last match wins, so a repeated pattern moves to the end
        precisions[pattern] = precision
    return precisions


@click.command(
    short_help="Turn a checkpoint into an artifact with int4 or int8 weights.",
    epilog=example(
        "intaglio quantize Qwen/Qwen2-0.5B-Instruct out",
        "intaglio quantize ./checkpoint out --precision int8",
        "intaglio quantize ./checkpoint out --dry-run",
        "intaglio quantize ./checkpoint out --for webgpu",
        "intaglio quantize ./checkpoint out --calibration default --calibration chats.jsonl",
        "intaglio quantize ./checkpoint out --target-size 330MB --keep '*.layers.0.*=int8' --resume",
    ),
)
@click.argument("source")
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--precision", type=click.Choice(QUANTIZED), default="int4", show_default=True, help="Precision of the weights."
)
@click.option(
    "--method",
    type=click.Choice(METHODS),
    default="auto",
    show_default=True,
    help="`rtn` rounds to nearest, without calibration; `gptq` compensates the rounding error of each column in the "
    "columns after it; `awq` folds scales into the norms first; `smoothquant`, for int8, uses int8 activations with "
    "one scale per token, for faster prefill; `auto` is gptq with mixed bits for int4, and rtn for int8.",
)
@click.option(
    "--block-size",
    type=int,
    metavar="N",
    help=f"Columns that share a scale: {', '.join(map(str, BLOCK_SIZES))}.  [default: mixed, or 32, or 16 and 32]",
)
@bits_option
@calibration_options
@click.option(
    "--keep",
    callback=parse_keep,
    multiple=True,
    metavar="PATTERN=PRECISION",
    help="Store weights whose path matches a pattern, such as '*.down_proj' or lm_head, in float, int8 or int4; may "
    "be given several times, the last match wins.",
)
@click.option(
    "--target-size",
    callback=parse_size,
    metavar="SIZE",
    help="Mix bits for the smallest estimated KL divergence at this size, such as 330MB.",
)
@click.option(
    "--target-kl",
    type=float,
    metavar="X",
    help="Mix bits for the smallest size at this estimated KL divergence, in nats per token.",
)
@click.option(
    "--activations",
    type=click.Choice(FLOAT_PRECISIONS),
    help="Precision of the activations; fp16 or bf16 for GPUs.  [default: as --for wants, or fp32]",
)
@accuracy_level_option
@click.option("--resume", is_flag=True, help="Keep finished work if interrupted, and continue from it the next time.")
@dry_run_option
@making_options
@json_option
def command(
    source: str,
    out: Path,
    precision: str,
    method: str,
    block_size: int | None,
    bits: tuple[int, ...] | None,
    calibration: tuple[str | Path, ...] | None,
    windows: int | None,
    keep: dict[str, str],
    target_size: int | None,
    target_kl: float | None,
    activations: FloatPrecision | None,
    accuracy_level: "AccuracyLevel | None",
    resume: bool,
    dry_run: bool,
    making: Making,
    as_json: bool,
) -> None:
    """Write SOURCE, a checkpoint or an unquantized artifact, with int4 or int8 weights into the new folder OUT.

    The estimated KL divergence of a weight is the estimate, in nats per token, of how far its rounding changes the
    distribution of the next token.
    """
    with export_extra():
        from ...exporter import QuantizeOptions, quantize
        from ...models.adapters.given import parse_adapter
    options = QuantizeOptions(
        method=cast("Method", method),
        block_size=block_size,
        bits=bits,
        calibration=calibration,
        windows=windows,
        keep=cast("dict[str, Kept]", keep),
        target_size=target_size,
        target_kl=target_kl,
        activations=activations,
        accuracy_level=accuracy_level,
        resume=resume,
    )
    if dry_run:
        print_estimate(source, out, cast("QuantizedPrecision", precision), options, making, as_json)
        return

    def make(report: Report) -> Manifest:
        return quantize(
            source,
            out,
            precision=cast("QuantizedPrecision", precision),
            options=options,
            task=making.task,
            target=making.target,
            device=making.device,
            attention=making.attention,
            ignore_auto_map=making.ignore_auto_map,
            ignore_adapter=making.ignore_adapter,
            adapters=[parse_adapter(text) for text in making.adapters],
            generation_config=making.generation_config,
            ignore_generation_keys=making.ignore_generation_keys,
            revision=making.revision,
            force=making.force,
            progress=report,
        )

    make_artifact(make, source, out, making, as_json)
