"""Say where the time of loading an artifact goes.

    python -m intaglio.benchmarks.loading ARTIFACT --repeats 5

Prints the milliseconds of a load in a new process, the least of the repeats: all of it, and each of its parts alone,
after one another. A load reads the tokenizer while ONNX Runtime opens the session, so the parts sum to more than the
whole. CPU time is that of all threads: on a machine that is busy it says more than the clock.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click


def measured(step: Callable[[], Any]) -> tuple[Any, list[float]]:
    """Return a step's result, and its milliseconds by the clock and of CPU time."""
    wall, cpu = time.perf_counter(), time.process_time()
    found = step()
    return found, [1e3 * (time.perf_counter() - wall), 1e3 * (time.process_time() - cpu)]


def whole(path: Path, options: dict[str, Any]) -> dict[str, list[float]]:
    """Load once in this process, which has imported nothing."""

    def imported() -> Any:
        from intaglio.runtime import load

        return load

    load, importing = measured(imported)
    _, loading = measured(lambda: load(path, **options))
    return {"import intaglio.runtime": importing, "load": loading}


def parts(path: Path, options: dict[str, Any]) -> dict[str, list[float]]:
    """Run each part of a load once."""
    from intaglio.files.tokenizer_file import read_tokenizer
    from intaglio.runtime.engine.onnxruntime import import_onnxruntime
    from intaglio.runtime.engine.opening import open_session
    from intaglio.runtime.folder import open_folder
    from intaglio.runtime.graph.graph import changed_graph
    from intaglio.runtime.kernels import changes_for, replaceable

    found = {}
    (folder, manifest), found["  manifest and sizes of files"] = measured(lambda: open_folder(path))
    _, found["  import onnxruntime"] = measured(import_onnxruntime)
    changes = changes_for(replaceable(manifest, False))
    data = folder / manifest.data
    _, found["  graph edits (part of the session)"] = measured(
        lambda: changed_graph(folder / manifest.graph, data, changes)
    )
    cache = Path(options["weight_cache"]) if options["weight_cache"] else None
    _, found["  session, with packed weights"] = measured(
        lambda: open_session(folder, manifest, threads=options["threads"], weight_cache=cache)
    )
    _, found["  tokenizer"] = measured(lambda: read_tokenizer(folder))
    return found


def least(runs: list[dict[str, list[float]]]) -> dict[str, list[float]]:
    return {name: [min(run[name][kind] for run in runs) for kind in range(2)] for name in runs[0]}


@click.command(context_settings={"show_default": True})
@click.argument("artifact", type=click.Path(exists=True, path_type=Path))
@click.option("--repeats", default=5, help="Processes for each figure.")
@click.option("--threads", type=int, help="Threads of one operator; all processors without it.")
@click.option("--weight-cache", help="A folder for packed weights, as that of `load`.")
@click.option("--child", type=click.Choice(["whole", "parts"]), hidden=True)
def main(artifact: Path, repeats: int, threads: int | None, weight_cache: str | None, child: str | None) -> None:
    options = {"threads": threads, "weight_cache": weight_cache}
    if child is not None:
        click.echo(json.dumps(whole(artifact, options) if child == "whole" else parts(artifact, options)))
        return
    given = [word for name, value in options.items() if value for word in (f"--{name.replace('_', '-')}", str(value))]
    command = [sys.executable, "-m", "intaglio.benchmarks.loading", str(artifact), *given, "--child"]
    click.echo(f"{'milliseconds':40}{'clock':>8}{'CPU':>8}")
    for name in ("whole", "parts"):
        runs = [json.loads(subprocess.check_output([*command, name], text=True)) for _ in range(repeats)]
        for label, (wall, cpu) in least(runs).items():
            click.echo(f"{label:40}{wall:8.0f}{cpu:8.0f}")


if __name__ == "__main__":
    main()
