"""The local cluster, as the tests see it: what is deployed, the processes of the replicas, their metrics."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import psutil
from intaglio.tests.serving.cluster.cluster_process import PACE
from prometheus_client.parser import text_string_to_metric_families

PACE_SECONDS = 0.02


class LocalCluster:
    """A cluster with the application of the last ``deploy``."""

    def __init__(self, process: "subprocess.Popen[str]", port: int) -> None:
        self.process = process
        self.address = f"http://127.0.0.1:{port}"

    def deploy(self, **config: Any) -> None:
        """Deploy a declaration, and wait until it runs."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(config) + "\n")
        self.process.stdin.flush()
        while (line := self.process.stdout.readline()) != "running\n":
            assert line, "the cluster has ended; its log is in the test's output"

    def replicas(self) -> dict[int, psutil.Process]:
        """Return the processes of the replicas by their ids."""
        found = {}
        for process in psutil.process_iter(["cmdline", "environ"]):
            command, environment = process.info["cmdline"] or [], process.info["environ"] or {}
            ours = environment.get("INTAGLIO_TEST_CLUSTER") == self.address
            if ours and command and command[0].startswith("ray::ServeReplica:served:FaultyReplica"):
                found[process.pid] = process
        return found

    def samples(self, name: str) -> dict[str, float]:
        """Return a metric's value of each replica, summed over the other labels."""
        page = httpx.get(f"{self.address}/metrics", timeout=60).raise_for_status().text
        found: dict[str, float] = {}
        for family in text_string_to_metric_families(page):
            for sample in family.samples:
                if sample.name == name:
                    replica = sample.labels["replica"]
                    found[replica] = found.get(replica, 0) + sample.value
        return found


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 120) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"in {seconds} seconds not: {what}"
        time.sleep(0.05)


@contextmanager
def local_cluster() -> Iterator[LocalCluster]:
    """Start a cluster of two nodes with one processor each.

    Its models take 20 ms longer for each step, so that what a test does falls into an answer.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        PACE: str(PACE_SECONDS),
        "INTAGLIO_TEST_CLUSTER": f"http://127.0.0.1:{port}",
        "OMP_NUM_THREADS": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "intaglio.tests.serving.cluster.cluster_process", str(port)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )
    try:
        yield LocalCluster(process, port)
        process.communicate(timeout=120)
    finally:
        end_session(process)


def end_session(process: "subprocess.Popen[str]") -> None:
    """End what is left of a cluster: the processes of its session."""
    for member in psutil.process_iter():
        try:
            if os.getsid(member.pid) == process.pid:
                member.send_signal(signal.SIGKILL)
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()
