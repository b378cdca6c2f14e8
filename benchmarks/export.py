"""Measure the time and peak memory of an export, each run in a process of its own.

    python -m intaglio.benchmarks.export CHECKPOINT                                 a real checkpoint
    python -m intaglio.benchmarks.export --shape qwen2-7b --precision bf16          random weights of that shape
    python -m intaglio.benchmarks.export --shape exaone4-32b --graph-only           the graph alone
    python -m intaglio.benchmarks.export CHECKPOINT --precision int4                rounded to nearest

Peak memory is the kernel's VmHWM of the process, less that of an interpreter that imports nothing. Times are medians
of ``--runs`` runs: the graph's from the first call to the finished graph, the total without the interpreter's start but
with the imports of torch and onnx.
"""

import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from .harness import memory

MODULE = "intaglio.benchmarks.export"
PRINT_PEAK = "print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])"


@click.command(context_settings={"show_default": True})
@click.argument("checkpoint", required=False, type=click.Path(exists=True, path_type=Path))
@click.option("--shape", help="Random weights of this shape instead of a checkpoint.")
@click.option("--precision", default="fp32")
@click.option("--target", default="ort")
@click.option("--runs", default=3)
@click.option("--graph-only", is_flag=True, help="Stop at the finished graph; no weights are written.")
@click.option("--scratch", type=click.Path(path_type=Path), help="Folder for temporary files.")
def main(
    checkpoint: Path | None,
    shape: str | None,
    precision: str,
    target: str,
    runs: int,
    graph_only: bool,
    scratch: Path | None,
) -> None:
    if (checkpoint is None) == (shape is None):
        raise click.UsageError("give either a checkpoint or --shape")
    work = Path(tempfile.mkdtemp(dir=scratch))
    try:
        if shape is not None:
            from .artifacts import random_checkpoint

            checkpoint = random_checkpoint.write(work / shape, shape, sparse=graph_only)
        arguments = [str(checkpoint), str(work / "out"), precision, target, str(int(graph_only))]
        results = [_run(arguments, work / "out") for _ in range(runs)]
    finally:
        shutil.rmtree(work)
    command = [sys.executable, "-c", PRINT_PEAK]
    base = int(subprocess.run(command, capture_output=True, check=True, text=True).stdout) * 1024 / 1e6
    table = Table("", "median", "min", "max", title=f"{shape or checkpoint}, {precision}, target {target}, {runs} runs")
    for key, label in (
        ("imports", "imports, s"),
        ("graph", "graph, s"),
        ("rest", "weights and files, s"),
        ("total", "total, s"),
        ("peak", "peak memory above the interpreter's, MB"),
    ):
        values = [figures[key] - base if key == "peak" else figures[key] for figures in results if key in figures]
        if values:
            row = (statistics.median(values), min(values), max(values))
            table.add_row(label, *(f"{v:,.0f}" if key == "peak" else f"{v:.1f}" for v in row))
    Console().print(table)


def worker(checkpoint: str, out: str, precision: str, target: str, graph_only: str) -> None:
    """Export in this process, and print the figures as JSON."""
    start = time.perf_counter()
    from intaglio.exporter import QuantizeOptions, export
    from intaglio.exporter.build import build_graph
    from intaglio.models.checkpoint import Checkpoint

    figures = {"imports": time.perf_counter() - start}
    reached: dict[tuple[str, int], float] = {}
    begin = time.perf_counter()

    def progress(stage: str, done: int, total: int) -> None:
        reached.setdefault((stage, done), time.perf_counter())

    if graph_only == "1":
        opened = Checkpoint(checkpoint)
        build_graph(opened, opened.task, target, precision, progress)  # type: ignore[arg-type]  # words of the command
    else:
        options = QuantizeOptions("rtn") if precision in ("int8", "int4") else None
        export(checkpoint, out, precision=precision, target=target, options=options, progress=progress)  # type: ignore[arg-type]
    end = time.perf_counter()
    figures["graph"] = reached["graph", 2] - begin
    if graph_only != "1":
        figures["rest"] = end - reached["graph", 2]
    figures["total"] = end - start
    figures["peak"] = memory.peak()
    print(json.dumps(figures))


def _run(arguments: list[str], out: Path) -> dict[str, float]:
    command = [sys.executable, "-m", MODULE, "--worker", *arguments]
    result = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    shutil.rmtree(out, ignore_errors=True)
    figures: dict[str, float] = json.loads(result.stdout)
    return figures


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        worker(*sys.argv[2:])
    else:
        main()
