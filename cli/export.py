"""``intaglio export``: a checkpoint becomes an artifact."""

import time
from pathlib import Path

import click

from ..artifact import PRECISIONS, TARGETS, TASKS, Manifest, Precision, Target, Task
from .extras import export_extra
from .memory import peak_rss
from .options import example, json_option
from .progress import progress
from .show import print_facts, print_json, size


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
    "--task",
    type=click.Choice(["auto", *TASKS]),
    default="auto",
    show_default=True,
    help="What the model does; `auto` reads it from the architecture in config.json.",
)
@click.option("--precision", type=click.Choice(PRECISIONS), default="fp32", show_default=True, help="Of the weights.")
@click.option(
    "--target",
    type=click.Choice(TARGETS),
    default="ort",
    show_default=True,
    help="`ort`: ONNX Runtime's fused operators; `standard`: ONNX opset 24 alone.",
)
@click.option("--revision", help="Commit, tag or branch, where SOURCE is a hub id.")
@click.option("--force", is_flag=True, help="Replace OUT, once the new artifact is complete.")
@json_option
def command(
    source: str,
    out: Path,
    task: Task,
    precision: Precision,
    target: Target,
    revision: str | None,
    force: bool,
    as_json: bool,
) -> None:
    """Write the checkpoint SOURCE, a folder or a hub id, as an ONNX artifact into the new folder OUT."""
    started = time.monotonic()
    with export_extra():
        from ..exporter import export
    with progress() as report:
        manifest = export(
            source,
            out,
            task=task,
            precision=precision,
            target=target,
            revision=revision,
            force=force,
            progress=report,
        )
    _summarise(out, manifest, time.monotonic() - started, as_json)


def _summarise(out: Path, manifest: Manifest, seconds: float, as_json: bool) -> None:
    total = sum(entry.size for entry in manifest.files.values())
    peak = peak_rss()
    if as_json:
        print_json(
            {
                "artifact": str(out),
                "family": manifest.family,
                "task": manifest.task,
                "target": manifest.target,
                "precision": manifest.precision,
                "source": {"id": manifest.source.id, "revision": manifest.source.revision},
                "bytes": total,
                "seconds": round(seconds, 3),
                "peak_rss_bytes": peak,
            }
        )
        return
    print_facts(
        [
            ("artifact", str(out)),
            ("model", f"{manifest.family}, {manifest.task}, {manifest.precision}, target {manifest.target}"),
            ("size", f"{size(total)} in {len(manifest.files)} files"),
            ("time", f"{seconds:.1f} s"),
            *([("memory", f"{size(peak)} at its peak")] if peak is not None else []),
        ]
    )
