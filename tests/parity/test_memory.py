"""A checkpoint that is larger than the available memory can be checked."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from intaglio.exporter import QuantizeOptions, quantize
from intaglio.tests import tiny

LIMIT = 400 << 20
"""Bytes that the process may allocate beyond those of the interpreter and the libraries.

A mapped file counts, since torch maps it for writing; the checkpoint has shards for that reason, as large models have.
"""

SHAPE: dict[str, Any] = {
    "hidden_size": 512,
    "intermediate_size": 1536,
    "num_hidden_layers": 137,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 64,
    "layer_types": tiny.ABSENT,
    "sliding_window": None,
    "sliding_window_pattern": tiny.ABSENT,
}

CHECK = """
import resource, sys
import torch, onnxruntime, onnx_ir
from intaglio.parity import CheckOptions, check
torch.set_num_threads(1)
torch.ones(8, 8) @ torch.ones(8, 8)
held = next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmData:"))
resource.setrlimit(resource.RLIMIT_DATA, (held + {limit}, held + {limit}))
report = check(sys.argv[1], sys.argv[2], options=CheckOptions(windows=1, window=32, steps=4), threads=1)
print(len(report.findings), sum(t.fault is not None for t in report.tensors), len(report.layers), len(report.tensors))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_DATA counts what a process allocates on Linux alone")
def test_a_checkpoint_of_four_times_the_memory(tmp_path: Path) -> None:
    source = tiny.write(tmp_path / "source", tiny.config("exaone4", **SHAPE), shards=137)
    size = sum(file.stat().st_size for file in source.glob("*.safetensors"))
    assert size > 4 * LIMIT
    quantize(source, tmp_path / "out", options=QuantizeOptions(method="rtn", block_size=128))
    code = CHECK.format(limit=LIMIT)
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "out"), str(source)],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        # Freed memory goes back to the system, rather than into a heap that counts.
        env={**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    # Random weights do not stand four bits: the verdict says so, and nothing else may be wrong.
    findings, faults, layers, tensors = done.stdout.split()
    assert (findings, faults) == ("0", "0")
    assert int(layers) >= SHAPE["num_hidden_layers"]
    assert int(tensors) > 7 * SHAPE["num_hidden_layers"]
