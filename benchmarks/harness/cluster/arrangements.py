"""The arrangements that are compared, as processes that listen on a free port."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from ...artifacts.environments import process_environment
from ..serving import servers

SERVER, ONE, TWO, RANDOM = "intaglio serve", "Ray, 1 replica", "Ray, 2 replicas", "Ray, 2 replicas, no affinity"
ARRANGEMENTS = (SERVER, ONE, TWO, RANDOM)
END_SECONDS = 10.0


@dataclass(frozen=True)
class Running:
    """An arrangement that runs: its address, and the process that began it."""

    address: str
    process: psutil.Process

    def memory(self) -> dict[str, float]:
        """Return its memory in MB of 10^6 bytes, pages that several processes map counted once: of the processes that
        hold the model, and of the others.
        """
        found = {"models": 0.0, "others": 0.0}
        members = [self.process, *self.process.children(recursive=True)]
        alone = len(members) == 1
        for member in members:
            try:
                title, size = " ".join(member.cmdline()), member.memory_full_info().pss / 1e6
            except psutil.NoSuchProcess:
                continue
            found["models" if alone or title.startswith("ray::ServeReplica:served:Replica") else "others"] += size
        return found


@contextmanager
def running(name: str, artifact: Path, room: servers.Room, python: Path, log: Path) -> Iterator[Running]:
    """Start an arrangement, and end it after the block.

    Args:
        room: of all replicas together: each of two has half of the slots and half of the threads.
        python: an interpreter that has Ray.

    Raises:
        SystemExit: it does not start; with the end of its log.
    """
    if name == SERVER:
        with servers.running(servers.intaglio(artifact), room, log) as address:
            yield Running(address, _child_that_listens(address))
        return
    port = servers.free_port()
    command = [str(python), "-m", "intaglio.benchmarks.harness.cluster.ray_process", str(port)]
    variables = {
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",  # Ray ends a proxy that a busy machine has not started by then
    }
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as stream:
        process = subprocess.Popen(
            [*command, json.dumps(declaration(name, artifact, room, log.parent / "weights"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stream,
            text=True,
            env=process_environment(**variables),
        )
        started = psutil.Process(process.pid)
        assert process.stdout is not None
        try:
            while (line := process.stdout.readline()) != "running\n":
                if not line:
                    raise SystemExit(f"{name} does not start:\n{log.read_text(errors='replace')[-2000:]}")
            yield Running(f"http://127.0.0.1:{port}", started)
        finally:
            _end(process, started)


def declaration(name: str, artifact: Path, room: servers.Room, weights: Path) -> dict[str, Any]:
    """Return the ``ClusterConfig`` of an arrangement on Ray; its replicas map their packed weights from ``weights``."""
    replicas = 1 if name == ONE else 2
    return {
        "artifacts": {"model": str(artifact)},
        "settings": {"slots": room.slots // replicas, "max_length": room.max_length},
        "load": {"weight_cache": str(weights)},
        "replicas": replicas,
        "cpus": room.threads // replicas,
        "affinity": name != RANDOM,
    }


def _child_that_listens(address: str) -> psutil.Process:
    port = int(address.rpartition(":")[2])
    for child in psutil.Process().children(recursive=True):
        if any(one.laddr.port == port and one.status == psutil.CONN_LISTEN for one in child.net_connections()):
            return child
    raise SystemExit(f"no process of {sys.argv[0]} listens at {address}")


def _end(process: "subprocess.Popen[str]", started: psutil.Process) -> None:
    """End Ray, and what is left of its processes."""
    members = started.children(recursive=True)
    try:
        process.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
    _, left = psutil.wait_procs(members, timeout=END_SECONDS)
    for member in left:
        member.kill()
