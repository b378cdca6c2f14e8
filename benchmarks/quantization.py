"""The table and the plots of quantization.md: what each quantization costs, and what it does to the model.

    python benchmarks/quantization.py CHECKPOINT --scratch DIR          makes and measures what DIR does not hold yet
        --genai PYTHON --llama PYTHON --gguf FILE --openvino PYTHON     peers, each by an interpreter that has it
        --peer NAME=FOLDER                                              another ONNX artifact with the same inputs
        --only NAME [--again]                                           one row; made and measured anew
        --speed 5                                                       that many rounds of timing, on a quiet machine
        --report benchmarks                                             where to write the table and the plots

The rows stand in rows.py; shelf.py says what DIR holds. Every figure is cached there, so that rows can be measured one
by one. Sizes and memory in megabytes of 10^6 bytes.
"""

import json
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import report
from quality_cache import prepare
from rows import OWN, PEERS, REFERENCE, Row
from shelf import HERE, Shelf, environment, interpreters
from sizes import sizes

TOOLS = {"genai": "onnxruntime-genai", "llama": "llama.cpp", "openvino": "OpenVINO"}


@click.command(context_settings={"show_default": True})
@click.argument("checkpoint", type=click.Path(exists=True, path_type=Path))
@click.option("--scratch", required=True, type=click.Path(path_type=Path), help="Artifacts, texts and figures; 15 GB.")
@click.option("--genai", help="A Python with onnxruntime-genai, onnxruntime, torch and transformers.")
@click.option("--llama", help="A Python with llama-cpp-python.")
@click.option("--gguf", help="The checkpoint unquantized in a GGUF file, for llama.cpp.")
@click.option("--openvino", help="A Python with optimum-intel, openvino and nncf.")
@click.option("--peer", "extra", multiple=True, metavar="NAME=FOLDER")
@click.option("--only", multiple=True, metavar="NAME")
@click.option("--again", is_flag=True, help="Forget what is cached about the rows named by --only.")
@click.option("--windows", default=16, help="Windows of 512 tokens from each text.")
@click.option("--speed", "rounds", default=0, help="Rounds of timing.")
@click.option("--report", "place", type=click.Path(path_type=Path), help="Write quantization.md and its plots there.")
def main(
    checkpoint: Path,
    scratch: Path,
    gguf: str | None,
    extra: tuple[str, ...],
    only: tuple[str, ...],
    again: bool,
    windows: int,
    rounds: int,
    place: Path | None,
    **given: str | None,
) -> None:
    pythons = interpreters({tool: given[key] for key, tool in TOOLS.items()})
    shelf = Shelf(scratch, checkpoint, gguf)
    rows = [row for row in (*OWN, *PEERS) if row.tool in pythons]
    for named in extra:
        name, _, folder = named.partition("=")
        rows.append(Row(name, name, "", "", "", out=str(Path(folder).absolute())))
    if unknown := set(only) - {row.name for row in rows}:
        raise click.UsageError(f"no such row: {', '.join(sorted(unknown))}; known: {', '.join(r.name for r in rows)}")
    chosen = [row for row in rows if not only or row.name in only]
    for row in chosen:
        if again and only:
            shelf.file(row).unlink(missing_ok=True)
        shelf.make(row, pythons[row.tool])
    reference = next(row for row in OWN if row.name == REFERENCE)
    cache = scratch / f"quality-{windows}x512"
    shelf.make(reference, sys.executable)
    prepare(cache, checkpoint, windows, shelf.path(reference))
    for row in chosen:
        figures = shelf.read(row)
        if f"quality-{windows}" not in figures:
            click.echo(f"{row.name}: quality")
            found = _worker(pythons[row.tool], "quality.py", "compare", str(shelf.path(row)), str(cache))
            shelf.write(row, **{f"quality-{windows}": found, "sizes": asdict(sizes(shelf.path(row)))})
    for number in range(rounds):
        stamp = time.time()
        for row in chosen:
            click.echo(f"round {number + 1} of {rounds}: {row.name}")
            found = _worker(pythons[row.tool], "speed.py", str(shelf.path(row)), str(cache))
            shelf.write(row, speed=[*shelf.read(row).get("speed", []), found | {"round": stamp}])
    if place is not None:
        everything = [(row, figures) for row in rows if f"quality-{windows}" in (figures := shelf.read(row))]
        report.write(place, everything, windows)


def _worker(python: str, *arguments: str) -> Any:
    command = [python, str(HERE / arguments[0]), *arguments[1:]]
    output = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True, env=environment()).stdout
    return json.loads(output.splitlines()[-1])


if __name__ == "__main__":
    main()
