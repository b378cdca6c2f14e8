"""Load time, decode, prefill and peak memory of one model, in this process.

    python benchmarks/speed.py MODEL CACHE     prints the figures as JSON

One prompt of 128 tokens and 127 decode steps, then one of 512 tokens; the first tokens of CACHE's windows. Peak memory
is the kernel's VmHWM after the 128 + 128, interpreter included. The runner's process is pinned to two processors and
gives the model two threads. Repeats are processes of their own, so that models can take turns.
"""

import json
import os
import sys
import time
from pathlib import Path

import numpy as np
from backends import open_model

THREADS = 2
PROMPT, STEPS, LONG = 128, 127, 512
WARM_UP = 4


def measure(path: Path, windows: Path) -> dict[str, float]:
    """``load`` in s, ``decode`` and ``prefill`` in tokens/s, ``peak`` in MB."""
    text = np.load(windows)
    begin = time.perf_counter()
    model = open_model(path, threads=THREADS, capacity=LONG)
    figures = {"load": time.perf_counter() - begin}
    token = model.prefill(text[0, :PROMPT])
    for _ in range(WARM_UP):
        token = model.step(token)
    token = model.prefill(text[1, :PROMPT])
    begin = time.perf_counter()
    for _ in range(STEPS):
        token = model.step(token)
    figures["decode"] = STEPS / (time.perf_counter() - begin)
    figures["peak"] = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1e3
    model.prefill(text[0, :LONG])
    begin = time.perf_counter()
    model.prefill(text[1, :LONG])  # another text: what reuses a prompt's beginning would have nothing to do
    figures["prefill"] = LONG / (time.perf_counter() - begin)
    return figures


if __name__ == "__main__":
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:THREADS])
    print(json.dumps(measure(Path(sys.argv[1]), Path(sys.argv[2]) / "windows.npy")))
