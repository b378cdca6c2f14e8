"""``intaglio export``: a checkpoint becomes an artifact."""

import time
from pathlib import Path

import click

from ...artifact import PRECISIONS, Precision, Target, Task
from ...extras import export_extra
from ..options import example, json_option, source_options
from ..progress import Stopwatch, both, progress
from ..proof import check_runtime, prove
from ..summary import print_summary


@click.command(
    short_help="Turn a checkpoint into an artifact.",
    epilog=example(
        "intaglio export Qwen/Qwen2-0.5B-Instruct out",
        "intaglio export ./my-classifier out --task text-classification --target standard",
    ),
)
@click.argument("source")
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    default="fp32",
    show_default=True,
    help="Of the weights; int8 and int4 as `intaglio quantize` makes them, which has the options.",
)
@source_options
@json_option
def command(
    source: str,
    out: Path,
    task: Task,
    precision: Precision,
    target: Target,
    revision: str | None,
    force: bool,
    no_parity: bool,
    as_json: bool,
) -> None:
    """Write the checkpoint SOURCE, a folder or a hub id, as an ONNX artifact into the new folder OUT."""
    started = time.monotonic()
    with export_extra():
        from ...exporter import export
    if not no_parity:
        check_runtime(out)
    watch = Stopwatch()
    with progress() as report:
        manifest = export(
            source,
            out,
            task=task,
            precision=precision,
            target=target,
            revision=revision,
            force=force,
            progress=both(watch, report),
        )
        verdict = "not checked" if no_parity else prove(source, out, revision, both(watch, report))
    print_summary(out, manifest, verdict, time.monotonic() - started, watch.seconds, as_json)
