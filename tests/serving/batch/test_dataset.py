"""A job over a data set of Ray, killed while it runs, and run again."""

import os
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from intaglio import load
from intaglio.serving.batch.job import Blocks
from intaglio.tests.serving.cluster.local_cluster import end_session

pytestmark = pytest.mark.slow

ROWS = 160


def start(artifact: Path, folder: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "intaglio.tests.serving.batch.dataset_process", str(artifact), str(folder), str(ROWS)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"},
        start_new_session=True,
    )


def test_a_killed_job_goes_on_in_order_without_its_finished_rows(artifacts: dict[str, Path], tmp_path: Path) -> None:
    if find_spec("ray") is None:
        pytest.skip("Ray is not installed: pip install 'intaglio[cpu,ray]'")
    artifact, folder = artifacts["qwen2"], tmp_path / "out"
    first = start(artifact, folder)
    try:
        assert first.stdout is not None
        assert first.stdout.readline() == "0\n"
        assert first.stdout.readline() == "8\n"
        first.send_signal(signal.SIGKILL)
    finally:
        end_session(first)
    job = {"artifact": str(artifact), "max_new_tokens": 32, "temperature": 0}
    written = [row["id"] for row in Blocks(folder, "id", job)]
    assert written == list(range(8))

    second = start(artifact, folder)
    try:
        output, _ = second.communicate(timeout=300)
    finally:
        end_session(second)
    assert second.returncode == 0
    counts = [int(line) for line in output.split()]
    assert counts[0] == len(written)
    assert counts[-1] == ROWS
    rows = list(Blocks(folder, "id", job))
    assert [row["id"] for row in rows] == list(range(ROWS))
    with load(artifact, task="text-generation", threads=1) as model:
        for row in (rows[0], rows[80], rows[-1]):
            assert row["generated_text"] == model.generate(row["prompt"], max_new_tokens=32, temperature=0).text
    assert [row["id"] for row in rows if row["error"] is not None] == [3]
