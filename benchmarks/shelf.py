"""The scratch folder that benchmarks share: artifacts, made once and kept, and what is known about each.

    DIR/artifacts/NAME     the model, as the row's command or options made it
    DIR/rows/NAME.json     how it was made, and figures; NAME.log what its maker printed

An artifact is made anew when its row's options change. Seconds and peak memory of making it are those of a whole
process, interpreter and imports included.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
from rows import Row

HERE = Path(__file__).resolve().parent
DEV = str(HERE.parent / ".dev")  # where intaglio is found without being installed


@dataclass(frozen=True)
class Shelf:
    """``given`` are finished artifacts that lie elsewhere, by the row's name; they are taken as they are."""

    scratch: Path
    checkpoint: Path
    gguf: str | None = None
    given: Mapping[str, Path] = field(default_factory=dict)

    def path(self, row: Row) -> Path:
        return self.given.get(row.name) or (self.scratch / "artifacts" / row.out.format(name=row.name)).absolute()

    def file(self, row: Row) -> Path:
        return self.scratch / "rows" / f"{row.name}.json"

    def read(self, row: Row) -> dict[str, Any]:
        file = self.file(row)
        return dict(json.loads(file.read_text())) if file.is_file() else {}

    def write(self, row: Row, **figures: Any) -> None:
        self.file(row).parent.mkdir(parents=True, exist_ok=True)
        self.file(row).write_text(json.dumps(self.read(row) | figures, indent=1) + "\n")

    def make(self, row: Row, python: str) -> None:
        """The artifact, unless it is there and was made with the same options.

        Raises:
            click.ClickException: it could not be made; with the end of what its maker printed.
        """
        if row.name in self.given:
            return
        recipe = json.loads(json.dumps({"options": row.options, "command": row.command, "out": row.out}))
        out, figures = self.path(row), self.read(row)
        if out.exists() and figures.get("recipe") == recipe:
            return
        self.file(row).unlink(missing_ok=True)
        if not row.options and not row.command:
            self.write(row, recipe=recipe)
            return
        click.echo(f"{row.name}: making it")
        if row.command:
            if "{gguf}" in row.command and self.gguf is None:
                raise click.UsageError("llama.cpp's rows need --gguf")
            filled = {"here": HERE, "source": self.checkpoint, "gguf": self.gguf, "out": out}
            command = [python, *(part.format(**filled) for part in row.command)]
        else:
            command = [python, str(HERE / "make.py"), str(self.checkpoint), str(out), json.dumps(row.options)]
        out.parent.mkdir(parents=True, exist_ok=True)
        self.write(row)
        begin = time.perf_counter()
        with self.file(row).with_suffix(".log").open("w+") as log:
            process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment())
            _, status, usage = os.wait4(process.pid, 0)
            if status != 0:
                log.seek(0)
                raise click.ClickException(f"{row.name} could not be made:\n{log.read()[-3000:]}")
        making = {"seconds": time.perf_counter() - begin, "peak": usage.ru_maxrss * 1024 / 1e6, "command": command[1:]}
        self.write(row, recipe=recipe, making=making)


def environment() -> dict[str, str]:
    """Of every process that is started: with this clone's intaglio, installed or not."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (DEV, os.environ.get("PYTHONPATH"))))}


def interpreters(found: Mapping[str, str | None]) -> dict[str, str]:
    """Interpreters by tool: ours, which is this one, and those of the tools that one was found for."""
    return {"intaglio": sys.executable, "": sys.executable} | {tool: python for tool, python in found.items() if python}
