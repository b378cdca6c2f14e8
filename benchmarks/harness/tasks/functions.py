"""Short functions in Python to complete, and the run of a completion against its tests.

The functions are in functions.jsonl: ``name``, ``prompt`` (the head and the docstring) and ``tests`` (expressions that
are true). A completion is a program of unknown origin: it runs in a process of its own, with limits of time and
memory, in an empty folder; that is no sandbox.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

PROBLEMS = Path(__file__).with_suffix(".jsonl")
STOPS = ("\ndef ", "\nclass ", "\nif __name__", "\nprint(", "\n#", "\n```", "\nassert ", "\nfrom ", "\nimport ")
SECONDS, BYTES = 10, 1 << 30
MOST_TOKENS = 160


def problems() -> list[dict[str, Any]]:
    """Return the problems, in the file's order."""
    return [json.loads(line) for line in PROBLEMS.read_text(encoding="utf-8").splitlines()]


def passes(prompt: str, completion: str, tests: list[str]) -> bool:
    """Return True where the completed function satisfies all tests."""
    checks = "".join(f"assert {test}\n" for test in tests)
    program = f"{_LIMITS.format(seconds=SECONDS, bytes=BYTES)}{prompt}{completion}\n\n{checks}"
    with tempfile.TemporaryDirectory() as folder:
        try:
            done = subprocess.run(
                [sys.executable, "-I", "-c", program],
                cwd=folder,
                env={},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=2 * SECONDS,
                check=False,
            )
        except (subprocess.TimeoutExpired, ValueError):  # a null byte is no program
            return False
    return done.returncode == 0


_LIMITS = """import resource as _resource
_resource.setrlimit(_resource.RLIMIT_CPU, ({seconds}, {seconds}))
_resource.setrlimit(_resource.RLIMIT_AS, ({bytes}, {bytes}))
_resource.setrlimit(_resource.RLIMIT_FSIZE, (0, 0))
"""
