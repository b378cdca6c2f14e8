"""``intaglio export``: turn a checkpoint into an artifact."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from ...artifact import PRECISIONS, Manifest, Precision
from ...errors import UsageError
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

if TYPE_CHECKING:
    from ...exporter.quantize.options import AccuracyLevel


@click.command(
    short_help="Turn a checkpoint into an artifact.",
    epilog=example(
        "intaglio export Qwen/Qwen2-0.5B-Instruct out",
        "intaglio export ./my-classifier out --task text-classification --target standard",
        "intaglio export ./my-gptq-checkpoint out",
    ),
)
@click.argument("source")
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--precision",
    type=click.Choice(("auto", *PRECISIONS)),
    default="auto",
    show_default=True,
    help="Precision of the weights. `auto` keeps those of a quantized checkpoint as they are, code for code, and is "
    "fp32 for another; the others are made anew, int8 and int4 as by `intaglio quantize` with its defaults.",
)
@calibration_options
@bits_option
@accuracy_level_option
@dry_run_option
@making_options
@json_option
def command(
    source: str,
    out: Path,
    precision: Literal[Precision, "auto"],
    calibration: tuple[str | Path, ...] | None,
    windows: int | None,
    bits: tuple[int, ...] | None,
    accuracy_level: "AccuracyLevel | None",
    dry_run: bool,
    making: Making,
    as_json: bool,
) -> None:
    """Export the checkpoint SOURCE, a folder or a hub id, as an ONNX artifact into the new folder OUT."""
    with export_extra():
        from ...exporter import QuantizeOptions, export
        from ...models.adapters.given import parse_adapter
    options = QuantizeOptions(calibration=calibration, windows=windows, bits=bits, accuracy_level=accuracy_level)
    if dry_run:
        if precision not in ("int4", "int8"):
            raise UsageError(f"--dry-run is for --precision int4 and int8, and it is {precision}; give one of them")
        print_estimate(source, out, precision, options, making, as_json)
        return
    given = None if options == QuantizeOptions() else options

    def make(report: Report) -> Manifest:
        return export(
            source,
            out,
            task=making.task,
            precision=precision,
            target=making.target,
            options=given,
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
