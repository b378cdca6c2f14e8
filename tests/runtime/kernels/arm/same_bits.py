"""Recorded cases give the same bits with every instruction set of this processor; run by ARM Python.

    python -m intaglio.tests.runtime.kernels.arm.same_bits FILE

FILE is what ``record`` wrote on another processor: pickled cases of the fuzzer, and their outputs.
"""

import os
import pickle
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from intaglio.runtime import kernels

from ..fuzz.case import Array, Case
from ..fuzz.judge import INSTRUCTIONS


def record(cases: Iterable[Case], path: Path) -> None:
    """Run the cases with this processor's kernels, and write them and their outputs."""
    path.write_bytes(pickle.dumps([(case, _run(case)) for case in cases]))


def differences(path: Path) -> tuple[list[str], list[str]]:
    """Return the instruction sets that were tried, and the cases that gave other bits with one of them."""
    told, tried = [], []
    recorded: list[tuple[Case, list[Array | None]]] = pickle.loads(path.read_bytes())
    for name in INSTRUCTIONS:
        os.environ["INTAGLIO_KERNELS"] = name
        if kernels.instructions() != name:
            continue
        tried.append(name)
        for number, (case, wanted) in enumerate(recorded):
            for output, (ours, theirs) in enumerate(zip(_run(case), wanted, strict=True)):
                count = _count_of_differences(ours, theirs)
                if count:
                    told.append(f"{name}, case {number}, {count} numbers of output {output}: {case.describe()}")
    return tried, told


def _run(case: Case) -> list[Array | None]:
    with tempfile.TemporaryDirectory() as folder:
        return case.run(Path(folder), own=True)


def _count_of_differences(ours: Array | None, theirs: Array | None) -> int:
    """Return how many numbers have other bits; all NaN are alike."""
    if ours is None or theirs is None:
        return int(ours is not theirs)
    if ours.dtype != theirs.dtype or ours.shape != theirs.shape:
        return max(ours.size, 1)
    if ours.dtype != np.float32:
        return int((ours != theirs).sum())
    both_nan = np.isnan(ours) & np.isnan(theirs)
    return int(((ours.view(np.int32) != theirs.view(np.int32)) & ~both_nan).sum())


if __name__ == "__main__":
    names, found = differences(Path(sys.argv[1]))
    sys.stdout.write(f"tried {', '.join(names)}\n")
    if found:
        sys.exit("\n".join(found))
