"""Rounds of measurements, each measurement in a process of its own."""

import json
import subprocess
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from ..artifacts.environments import process_environment
from ..artifacts.store import ArtifactStore
from .job import Job
from .measurements import Measurement
from .records import Records

WORKER = f"{__package__}.worker"
READ_BYTES = 1 << 24
CAPACITY = 8448  # positions: more than the longest prompt of the timings


@dataclass(frozen=True)
class Jobs:
    """Makes a measurement's job, and chooses the interpreter that runs it."""

    store: ArtifactStore
    pythons: Mapping[str, str]
    prompts: Path
    threads: int

    def __call__(self, measurement: Measurement) -> tuple[str, Job]:
        variant = measurement.variant
        job = Job(
            section=measurement.machine or measurement.section,
            tool=variant.tool,
            artifact=str(self.store.path(variant)),
            checkpoint=str(self.store.checkpoint),
            prompts=str(self.prompts),
            threads=self.threads,
            capacity=CAPACITY,
            settings=measurement.settings,
            variables=dict(variant.variables),
        )
        return self.pythons[variant.tool], job


class FailedError(Exception):
    """A process that ended without figures; the message is the end of its output."""


def run(python: str, job: Job) -> dict[str, Any]:
    """Run a job and return its figures.

    Raises:
        FailedError: the process failed.
    """
    variables = {"OMP_NUM_THREADS": str(job.threads), "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    variables |= job.variables
    done = subprocess.run(
        [python, "-m", WORKER, job.to_json()],
        env=process_environment(**variables),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0 or not done.stdout.strip():
        raise FailedError((done.stderr.strip() or done.stdout.strip() or f"ended with {done.returncode}")[-1500:])
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def rounds(
    measurements: Iterable[Measurement],
    count: int,
    records: Records,
    jobs: Callable[[Measurement], tuple[str, Job]],
) -> list[str]:
    """Run every measurement once in each round, another one first each time; return the failures in words.

    A measurement that fails is not tried again.
    """
    waiting = list(measurements)
    failures: dict[str, str] = {}
    for number in range(count):
        start = number % max(len(waiting), 1)
        for measurement in (*waiting[start:], *waiting[:start]):
            key = measurement.key(number)
            label = " ".join(filter(None, (key.section, key.name, key.case)))
            if label in failures or records.has(key):
                continue
            click.echo(f"round {number + 1}: {label}")
            python, job = jobs(measurement)
            fill_page_cache(Path(job.artifact))
            try:
                records.add(key, run(python, job))
            except FailedError as error:
                failures[label] = f"{label}: {str(error).splitlines()[-1]}"
                click.echo(f"{label}: {error}", err=True)
    return list(failures.values())


def fill_page_cache(path: Path) -> None:
    """Read the files of a model, so that loading it does not wait for the disk."""
    for file in [path] if path.is_file() else sorted(path.rglob("*")):
        if file.is_file():
            with file.open("rb") as stream:
                while stream.read(READ_BYTES):
                    pass
