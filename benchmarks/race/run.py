"""A turn in a process of its own, and the rounds."""

import json
import os
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from shelf import DEV, Shelf

from .job import Job
from .records import Records
from .turns import Turn

BENCHMARKS = Path(__file__).resolve().parents[1]
CHUNK = 1 << 24
CAPACITY = 2304  # positions: the longest prompt of the timings and some


@dataclass(frozen=True)
class Jobs:
    """What a turn's process is told, and the interpreter that runs it."""

    shelf: Shelf
    pythons: Mapping[str, str]
    prompts: Path
    threads: int

    def __call__(self, turn: Turn) -> tuple[str, Job]:
        job = Job(
            section=turn.measured or turn.section,
            tool=turn.row.tool,
            artifact=str(self.shelf.path(turn.row)),
            checkpoint=str(self.shelf.checkpoint),
            prompts=str(self.prompts),
            threads=self.threads,
            capacity=CAPACITY,
            settings=turn.settings,
        )
        return self.pythons[turn.row.tool], job


class FailedError(Exception):
    """A process that ended without figures; the message is the end of what it said."""


def run(python: str, job: Job) -> dict[str, Any]:
    """The figures of a job.

    Raises:
        FailedError: the process failed.
    """
    paths = [str(BENCHMARKS), *([DEV] if job.tool == "intaglio" else [])]
    threads = {"OMP_NUM_THREADS": str(job.threads), "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [python, "-m", "race.worker", job.to_json()],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)} | threads,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0 or not done.stdout.strip():
        raise FailedError((done.stderr.strip() or done.stdout.strip() or f"ended with {done.returncode}")[-1500:])
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def run_module(python: str, module: str, *arguments: object) -> None:
    """A module of this folder that makes something.

    Raises:
        click.ClickException: it failed; with the end of what it said.
    """
    command = [python, "-m", f"race.{module}", *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(BENCHMARKS)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise click.ClickException(f"{module} failed:\n{done.stderr[-1500:]}")


def rounds(turns: Iterable[Turn], count: int, records: Records, jobs: Jobs) -> list[str]:
    """Let everyone take a turn in each round, the first one another time each round; what failed, in words.

    Whoever fails is not asked again.
    """
    waiting = list(turns)
    failures: dict[str, str] = {}
    for number in range(count):
        start = number % max(len(waiting), 1)
        for turn in (*waiting[start:], *waiting[:start]):
            key = turn.key(number)
            label = " ".join(filter(None, (key.section, key.name, key.case)))
            if label in failures or records.has(key):
                continue
            click.echo(f"round {number + 1}: {label}")
            python, job = jobs(turn)
            warm(Path(job.artifact))
            try:
                records.add(key, run(python, job))
            except FailedError as error:
                failures[label] = f"{label}: {str(error).splitlines()[-1]}"
                click.echo(f"{label}: {error}", err=True)
    return list(failures.values())


def warm(path: Path) -> None:
    """Read the files of a model, so that they are in the page cache when it is loaded."""
    for file in [path] if path.is_file() else sorted(path.iterdir()):
        if file.is_file():
            with file.open("rb") as stream:
                while stream.read(CHUNK):
                    pass
