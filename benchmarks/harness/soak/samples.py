"""What a server holds at a moment, and whether it grows."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import httpx
import numpy as np

from ...pages.plots import Line


class Sample(NamedTuple):
    """What a server holds ``seconds`` after the start; memory in MB of 10^6 bytes."""

    seconds: float
    memory: float
    threads: int
    descriptors: int
    running: int
    waiting: int
    answered: int


async def sample(address: str, process: int, seconds: float, answered: int) -> Sample:
    """Take a sample."""
    async with httpx.AsyncClient(timeout=60) as http:
        metrics = (await http.get(f"{address}/metrics")).text
    folder = Path(f"/proc/{process}")
    memory = int((folder / "status").read_text(encoding="ascii").split("VmRSS:")[1].split()[0]) * 1024 / 1e6
    threads, files = (len(list((folder / name).iterdir())) for name in ("task", "fd"))
    return Sample(seconds, memory, threads, files, _gauge(metrics, "running"), _gauge(metrics, "waiting"), answered)


def _gauge(metrics: str, name: str) -> int:
    found = [line for line in metrics.splitlines() if line.startswith(f"vllm:num_requests_{name}{{")]
    return sum(int(float(line.rpartition(" ")[2])) for line in found)


def growth(samples: Sequence[Sample]) -> dict[str, float]:
    """Return by how much memory (MB), threads and descriptors grow in an hour, by the second half of the samples."""
    half = np.array(samples[len(samples) // 2 :], dtype=float)
    names = ("memory", "threads", "descriptors")
    columns = [half[:, Sample._fields.index(name)] for name in names]
    return {
        name: round(3600 * float(np.polyfit(half[:, 0], column, 1)[0]), 3)
        for name, column in zip(names, columns, strict=True)
    }


def series(samples: Sequence[Sample]) -> Mapping[str, tuple[Line, Line]]:
    """Return the lines of the plot by the heading of their panel."""

    def line(name: str) -> Line:
        return [(one.seconds, float(getattr(one, name))) for one in samples]

    return {
        "resident memory (MB)": (line("memory"), ()),
        "threads, and open files (orange)": (line("threads"), line("descriptors")),
        "requests that run, and that wait (orange)": (line("running"), line("waiting")),
        "requests that have ended": (line("answered"), ()),
    }
