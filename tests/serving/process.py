"""``intaglio serve`` as a process."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT / ".dev"), "OMP_NUM_THREADS": "1"}
COMMAND = [sys.executable, "-m", "intaglio.cli.main", "serve"]
TIMEOUT = 60.0


@contextmanager
def serving(
    *arguments: object, log: IO[str] | int = subprocess.PIPE, **environment: str
) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """Start the command on a free port; yield the process and the server's address.

    Args:
        log: where its standard error goes.
    """
    process = subprocess.Popen(
        [*COMMAND, *map(str, arguments), "--port", "0", "--json", "--threads", "1"],
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        env={**ENVIRONMENT, **environment},
    )
    assert process.stdout is not None
    try:
        ready = process.stdout.readline()
        assert ready, process.communicate()[1]
        yield process, json.loads(ready)["address"]
    finally:
        process.kill()
        process.communicate()
