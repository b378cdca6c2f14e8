"""Time and peak memory of an export, each in a process of its own.

    python benchmarks/export.py CHECKPOINT                      a real checkpoint
    python benchmarks/export.py --shape qwen2-7b --precision bf16    random weights of that shape
    python benchmarks/export.py --shape exaone4-32b --graph-only     the graph alone
    python benchmarks/export.py CHECKPOINT --precision int4          rounded to the nearest

Peak memory is the kernel's VmHWM of the process; the base is the same of an interpreter that imports nothing. Times
are medians of ``--runs`` runs; the graph's includes everything from the first call to the finished graph, the total
everything but the interpreter's start, imports of torch and onnx included.
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

MEASURE = "print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])"


@click.command(context_settings={"show_default": True})
@click.argument("checkpoint", required=False, type=click.Path(exists=True, path_type=Path))
@click.option("--shape", help="Random weights of this shape instead of a checkpoint.")
@click.option("--precision", default="fp32")
@click.option("--target", default="ort")
@click.option("--runs", default=3)
@click.option("--graph-only", is_flag=True, help="Stop at the finished graph; the weights are not even made.")
@click.option("--scratch", type=click.Path(path_type=Path), help="Where to put what is made.")
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
        raise click.UsageError("give a checkpoint or --shape")
    work = Path(tempfile.mkdtemp(dir=scratch))
    try:
        if shape is not None:
            import synthetic

            checkpoint = synthetic.write(work / shape, shape, sparse=graph_only)
        assert checkpoint is not None
        arguments = [str(checkpoint), str(work / "out"), precision, target, str(int(graph_only))]
        results = [_run(arguments, work / "out") for _ in range(runs)]
    finally:
        shutil.rmtree(work)
    base = int(subprocess.run([sys.executable, "-c", MEASURE], capture_output=True, check=True, text=True).stdout)
    table = Table("", "median", "min", "max", title=f"{shape or checkpoint}, {precision}, target {target}, {runs} runs")
    for key, label in (
        ("imports", "imports, s"),
        ("graph", "graph, s"),
        ("rest", "weights and files, s"),
        ("total", "total, s"),
        ("peak", "peak memory above the interpreter's, MB"),
    ):
        values = [r[key] - base / 1e3 if key == "peak" else r[key] for r in results if key in r]
        if values:
            row = (statistics.median(values), min(values), max(values))
            table.add_row(label, *(f"{v:,.0f}" if key == "peak" else f"{v:.1f}" for v in row))
    Console().print(table)


def _run(arguments: list[str], out: Path) -> dict[str, float]:
    command = [sys.executable, __file__, "--worker", *arguments]
    result = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    shutil.rmtree(out, ignore_errors=True)
    found: dict[str, float] = json.loads(result.stdout)
    return found


def worker(checkpoint: str, out: str, precision: str, target: str, graph_only: str) -> None:
    start = time.perf_counter()
    from intaglio.exporter import QuantizeOptions
    from intaglio.exporter import export as room
    from intaglio.exporter.export import build_graph
    from intaglio.models.checkpoint import Checkpoint

    times = {"imports": time.perf_counter() - start}
    marks: dict[tuple[str, int], float] = {}
    begin = time.perf_counter()

    def progress(stage: str, done: int, total: int) -> None:
        marks.setdefault((stage, done), time.perf_counter())

    if graph_only == "1":
        opened = Checkpoint(checkpoint)
        build_graph(opened, opened.task, target, precision, progress)  # type: ignore[arg-type]
    else:
        options = QuantizeOptions("rtn") if precision in ("int8", "int4") else None
        room(checkpoint, out, precision=precision, target=target, options=options, progress=progress)  # type: ignore[arg-type]
    end = time.perf_counter()
    times["graph"] = marks["graph", 2] - begin
    if graph_only != "1":
        times["rest"] = end - marks["graph", 2]
    times["total"] = end - start
    status = Path("/proc/self/status").read_text()
    times["peak"] = int(status.split("VmHWM:")[1].split()[0]) / 1e3
    print(json.dumps(times))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        worker(*sys.argv[2:])
    else:
        main()
