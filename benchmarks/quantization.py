"""The table and the plots of quantization.md: what each quantization costs, and what it does to the model.

    python benchmarks/quantization.py CHECKPOINT --scratch DIR          makes and measures what DIR does not hold yet
        --genai PYTHON --llama PYTHON --gguf FILE --openvino PYTHON     peers, each by an interpreter that has it
        --peer NAME=FOLDER                                              another ONNX artifact with the same inputs
        --only NAME [--again]                                           one row; made and measured anew
        --speed 5                                                       that many rounds of timing, on a quiet machine
        --report benchmarks                                             where to write the table and the plots

The rows stand in rows.py. Every figure is cached in DIR/rows/NAME.json, so that rows can be measured one by one. A row
is made anew when its options change. Seconds and peak memory of making it are those of a whole process, interpreter
and imports included. Sizes and memory in megabytes of 10^6 bytes.
"""

import json
import os
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
from sizes import sizes

HERE = Path(__file__).resolve().parent
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
    **interpreters: str | None,
) -> None:
    pythons = {"intaglio": sys.executable, "": sys.executable}
    pythons |= {tool: python for key, tool in TOOLS.items() if (python := interpreters[key])}
    (scratch / "rows").mkdir(parents=True, exist_ok=True)
    rows = [row for row in (*OWN, *PEERS) if row.tool in pythons]
    for given in extra:
        name, _, folder = given.partition("=")
        rows.append(Row(name, name, "", "", "", out=str(Path(folder).absolute())))
    if unknown := set(only) - {row.name for row in rows}:
        raise click.UsageError(f"no such row: {', '.join(sorted(unknown))}; known: {', '.join(r.name for r in rows)}")
    chosen = [row for row in rows if not only or row.name in only]
    for row in chosen:
        if again and only:
            _file(scratch, row).unlink(missing_ok=True)
        _make(row, checkpoint, scratch, gguf, pythons[row.tool])
    reference = next(row for row in OWN if row.name == REFERENCE)
    cache = scratch / f"quality-{windows}x512"
    _make(reference, checkpoint, scratch, gguf, sys.executable)
    prepare(cache, checkpoint, windows, _out(scratch, reference))
    for row in chosen:
        figures = _read(scratch, row)
        if f"quality-{windows}" not in figures:
            click.echo(f"{row.name}: quality")
            found = _worker(pythons[row.tool], "quality.py", "compare", str(_out(scratch, row)), str(cache))
            _write(scratch, row, **{f"quality-{windows}": found, "sizes": asdict(sizes(_out(scratch, row)))})
    for number in range(rounds):
        stamp = time.time()
        for row in chosen:
            click.echo(f"round {number + 1} of {rounds}: {row.name}")
            found = _worker(pythons[row.tool], "speed.py", str(_out(scratch, row)), str(cache))
            _write(scratch, row, speed=[*_read(scratch, row).get("speed", []), found | {"round": stamp}])
    if place is not None:
        everything = [(row, figures) for row in rows if f"quality-{windows}" in (figures := _read(scratch, row))]
        report.write(place, everything, windows)


def _make(row: Row, checkpoint: Path, scratch: Path, gguf: str | None, python: str) -> None:
    """The artifact, unless it is there and was made with the same options."""
    recipe = json.loads(json.dumps({"options": row.options, "command": row.command, "out": row.out}))
    out, figures = _out(scratch, row), _read(scratch, row)
    if out.exists() and figures.get("recipe") == recipe:
        return
    _file(scratch, row).unlink(missing_ok=True)
    if not row.options and not row.command:
        _write(scratch, row, recipe=recipe)
        return
    click.echo(f"{row.name}: making it")
    if row.command:
        if "{gguf}" in row.command and gguf is None:
            raise click.UsageError("llama.cpp's rows need --gguf")
        command = [python, *(part.format(here=HERE, source=checkpoint, gguf=gguf, out=out) for part in row.command)]
    else:
        command = [python, str(HERE / "make.py"), str(checkpoint), str(out), json.dumps(row.options)]
    out.parent.mkdir(exist_ok=True)
    begin = time.perf_counter()
    log = (scratch / "rows" / f"{row.name}.log").open("w+")
    process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        log.seek(0)
        raise click.ClickException(f"{row.name} could not be made:\n{log.read()[-3000:]}")
    making = {"seconds": time.perf_counter() - begin, "peak": usage.ru_maxrss * 1024 / 1e6, "command": command[1:]}
    _write(scratch, row, recipe=recipe, making=making)


def _worker(python: str, *arguments: str) -> Any:
    command = [python, str(HERE / arguments[0]), *arguments[1:]]
    output = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout
    return json.loads(output.splitlines()[-1])


def _out(scratch: Path, row: Row) -> Path:
    return (scratch / "artifacts" / row.out.format(name=row.name)).absolute()


def _file(scratch: Path, row: Row) -> Path:
    return scratch / "rows" / f"{row.name}.json"


def _read(scratch: Path, row: Row) -> dict[str, Any]:
    file = _file(scratch, row)
    return dict(json.loads(file.read_text())) if file.is_file() else {}


def _write(scratch: Path, row: Row, **figures: Any) -> None:
    _file(scratch, row).write_text(json.dumps(_read(scratch, row) | figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
