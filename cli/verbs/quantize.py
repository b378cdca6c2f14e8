"""``intaglio quantize``: a checkpoint becomes an artifact of int4 or int8 weights."""

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from ...artifact import FLOAT_PRECISIONS, FloatPrecision, Target, Task
from ...extras import export_extra
from ..options import example, json_option, source_options
from ..progress import Stopwatch, both, progress
from ..proof import check_runtime, prove
from ..summary import print_summary

if TYPE_CHECKING:
    from ...exporter.quantize.options import Kept, Method, QuantizedPrecision

# The exporter has these too, but importing it means importing torch; a test compares them.
METHODS = ("auto", "rtn", "gptq", "awq", "smoothquant")
QUANTIZED = ("int4", "int8")
BLOCK_SIZES = (16, 32, 64, 128, 256)

UNITS = {"": 1, "B": 1}
UNITS |= {f"{letter}B": 1000**power for power, letter in enumerate("KMG", start=1)}
UNITS |= {f"{letter}IB": 1024**power for power, letter in enumerate("KMG", start=1)}


def parse_size(_: click.Context, __: click.Parameter, value: str | None) -> int | None:
    """Bytes from ``300MB``, ``1.2 GB``, ``314572800``; decimal units, and ``MiB`` for binary ones.

    Raises:
        click.BadParameter: it is none of that.
    """
    if value is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-zA-Z]*)", value.strip())
    unit = UNITS.get(found[2].upper()) if found else None
    if found is None or unit is None:
        raise click.BadParameter(f"{value!r} is no size; write it like 300MB, 1.2GB or 314572800.")
    return int(float(found[1]) * unit)


def parse_keep(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """Precision by pattern, from several ``PATTERN=PRECISION``.

    Raises:
        click.BadParameter: one is none.
    """
    found: dict[str, str] = {}
    for value in values:
        pattern, _equals, precision = value.rpartition("=")
        if not pattern or not precision:
            raise click.BadParameter(f"{value!r} is no PATTERN=PRECISION; write it like 'lm_head=float'.")
        found.pop(pattern, None)  # the last that fits counts, also of two that are the same
        found[pattern] = precision
    return found


@click.command(
    short_help="Turn a checkpoint into an artifact of int4 or int8 weights.",
    epilog=example(
        "intaglio quantize Qwen/Qwen2-0.5B-Instruct out",
        "intaglio quantize ./checkpoint out --precision int8",
        "intaglio quantize ./checkpoint out --target-size 330MB --keep '*.layers.0.*=int8' --resume",
    ),
)
@click.argument("source")
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--precision", type=click.Choice(QUANTIZED), default="int4", show_default=True, help="Of the weights.")
@click.option(
    "--method",
    type=click.Choice(METHODS),
    default="auto",
    show_default=True,
    help="`rtn` rounds to the nearest: quick, and reads no text; `gptq` makes good each column's error in the next; "
    "`awq` folds scales into the norms first; `smoothquant`, for int8, multiplies by int8 activations with a scale for "
    "each token: faster prefill; `auto` is gptq with mixed bits for int4, and rtn for int8.",
)
@click.option(
    "--block-size",
    type=int,
    metavar="N",
    help=f"Columns that share a scale: {', '.join(map(str, BLOCK_SIZES))}.  [default: mixed, or 32, or 16 and 32]",
)
@click.option(
    "--calibration",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Text of the kind the model is for, in UTF-8.  [default: prose, a dozen languages and code]",
)
@click.option("--windows", type=click.IntRange(min=1), metavar="N", help="How many windows of that text are read.")
@click.option(
    "--keep",
    callback=parse_keep,
    multiple=True,
    metavar="PATTERN=PRECISION",
    help="Store the weights whose path fits a pattern such as '*.down_proj' or lm_head in float, int8 or int4; may be "
    "given several times, the last that fits counts.",
)
@click.option(
    "--target-size",
    callback=parse_size,
    metavar="SIZE",
    help="Mix bits for the least damage in this size, such as 330MB.",
)
@click.option(
    "--target-kl", type=float, metavar="X", help="Mix bits for the least size at this estimated KL, in nats per token."
)
@click.option(
    "--activations",
    type=click.Choice(FLOAT_PRECISIONS),
    default="fp32",
    show_default=True,
    help="What is computed in between; fp16 or bf16 for CUDA.",
)
@click.option("--resume", is_flag=True, help="Keep what is done when interrupted, and go on from it the next time.")
@source_options
@json_option
def command(
    source: str,
    out: Path,
    precision: str,
    method: str,
    block_size: int | None,
    calibration: Path | None,
    windows: int | None,
    keep: dict[str, str],
    target_size: int | None,
    target_kl: float | None,
    activations: FloatPrecision,
    resume: bool,
    task: Task,
    target: Target,
    revision: str | None,
    force: bool,
    no_parity: bool,
    as_json: bool,
) -> None:
    """Write SOURCE, a checkpoint or an artifact that is not quantized, with int4 or int8 weights into the new OUT.

    What is said of a weight's damage is the divergence (Kullback-Leibler) of the next token that its rounding is
    estimated to cause.
    """
    started = time.monotonic()
    with export_extra():
        from ...exporter import QuantizeOptions, quantize
    options = QuantizeOptions(
        method=cast("Method", method),
        block_size=block_size,
        calibration=calibration,
        windows=windows,
        keep=cast("dict[str, Kept]", keep),
        target_size=target_size,
        target_kl=target_kl,
        activations=activations,
        resume=resume,
    )
    if not no_parity:
        check_runtime(out)
    watch = Stopwatch()
    with progress() as report:
        manifest = quantize(
            source,
            out,
            precision=cast("QuantizedPrecision", precision),
            options=options,
            task=task,
            target=target,
            revision=revision,
            force=force,
            progress=both(watch, report),
        )
        verdict = "not checked" if no_parity else prove(source, out, revision, both(watch, report))
    print_summary(out, manifest, verdict, time.monotonic() - started, watch.seconds, as_json)
