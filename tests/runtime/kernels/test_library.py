"""Sessions share the library of kernels, unusable libraries are skipped, and running out of memory is reported."""

import importlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from intaglio.runtime import kernels, load
from intaglio.tests.runtime import fakes

from ..conftest import run_session
from .test_matmul import Case, needs_kernels, session

ROOT = Path(__file__).parents[3]
MACHINE = 18  # the place of e_machine, the architecture, in an ELF file
NO_MACHINE = 0xFEED
needs_plain_memory = pytest.mark.skipif(
    not sys.platform.startswith("linux") or "libasan" in os.environ.get("LD_PRELOAD", ""),
    reason="limits or reads a process's address space, of which AddressSanitizer takes its own",
)


def run_limited(script: str) -> str:
    """Return the output of a script that runs in its own process, whose memory it may limit."""
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": str(ROOT / ".dev")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@needs_kernels
def test_a_session_survives_the_end_of_another() -> None:
    case = Case(37, 96, 4, 32, zero_points=True, bias=True)
    x = np.random.default_rng(0).normal(size=(1, 5, 96)).astype(np.float32)
    first, second = session(case.model()), session(case.model())
    before = run_session(first, {"x": x})[0]
    del first
    assert np.array_equal(run_session(second, {"x": x})[0], before)
    assert np.array_equal(run_session(session(case.model()), {"x": x})[0], before)


@needs_kernels
@pytest.mark.parametrize("order", ["first", "last"])
def test_weights_that_share_huge_pages_are_freed_separately(order: str) -> None:
    """Use weights of half a megabyte each, so that they share one mapping."""
    case = Case(512, 2048, 4, 32, zero_points=True, bias=False)
    x = np.random.default_rng(0).normal(size=(1, 2, 2048)).astype(np.float32)
    sessions = [session(case.model()) for _ in range(5)]
    wanted = run_session(sessions[0], {"x": x})[0]
    while sessions:
        sessions.pop(0 if order == "first" else -1)
        again = session(case.model())
        for one in (*sessions, again):
            assert np.array_equal(run_session(one, {"x": x})[0], wanted)


@needs_kernels
@needs_plain_memory
def test_memory_of_weights_is_freed() -> None:
    """Free it also while other weights of the same mapping stay."""
    told = run_limited(
        """
import gc
from pathlib import Path
from intaglio.machine import give_back_memory
from intaglio.tests.runtime.kernels.test_matmul import Case, session

def resident():
    gc.collect()
    give_back_memory()
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) // 1000

model = Case(2000, 4096, 4, 32, False, False).model()
stays = session(model)
empty = resident()
sessions = [session(model) for _ in range(20)]
full = resident()
sessions.clear()
print(full - empty, resident() - empty)
"""
    )
    taken, left = map(int, told.split())
    assert taken > 20 * 4  # megabytes: each half a byte times 2000 times 4096
    assert left < taken // 4


@needs_kernels
@needs_plain_memory
def test_weights_need_no_more_address_space_than_there_is() -> None:
    told = run_limited(
        """
import resource
import numpy as np
from intaglio.tests.runtime.kernels.test_matmul import Case, session

case = Case(256, 2048, 4, 32, False, False)
session(Case(16, 32, 4, 32, False, False).model())  # what onnxruntime itself takes, but no shared mapping yet
now = int(next(line for line in open("/proc/self/status") if line.startswith("VmSize")).split()[1]) * 1024
resource.setrlimit(resource.RLIMIT_AS, (now + 300_000_000,) * 2)
x = np.ones((1, 1, 2048), dtype=np.float32)
print(np.allclose(session(case.model()).run(None, {"x": x})[0], case.expected(x), rtol=1e-3, atol=1e-3))
"""
    )
    assert told.strip() == "True"


@needs_kernels
def test_the_number_of_threads_does_not_change_results() -> None:
    case = Case(200, 96, 4, 32, zero_points=True, bias=True)
    x = np.random.default_rng(0).normal(size=(1, 40, 96)).astype(np.float32)
    found = []
    for threads in (1, 2, 3):
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.add_session_config_entry("intaglio.MatMulNBits", "1")
        options.register_custom_ops_library(str(kernels.library()))
        ours = ort.InferenceSession(case.model(), options, providers=["CPUExecutionProvider"])
        found.append(run_session(ours, {"x": x})[0])
    assert np.array_equal(found[0], found[1])
    assert np.array_equal(found[0], found[2])


@needs_kernels
def test_registering_twice_is_refused() -> None:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.add_session_config_entry("intaglio.MatMulNBits", "1")
    for _ in range(2):
        options.register_custom_ops_library(str(kernels.library()))
    case = Case(16, 32, 4, 32, zero_points=False, bias=False)
    with pytest.raises(Exception, match="Domain already set"):
        ort.InferenceSession(case.model(), options, providers=["CPUExecutionProvider"])
    x = np.ones((1, 1, 32), dtype=np.float32)
    np.testing.assert_allclose(run_session(session(case.model()), {"x": x})[0], case.expected(x), rtol=1e-4, atol=1e-4)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="changes an ELF file")
@pytest.mark.parametrize("wrong", ["architecture", "another library"])
def test_an_unusable_library_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: str) -> None:
    path = tmp_path / kernels.LIBRARY
    made = kernels.library()
    if wrong == "another library" or made is None:
        shutil.copy(str(importlib.import_module("numpy._core._multiarray_umath").__file__), path)
    else:
        content = bytearray(made.read_bytes())
        content[MACHINE : MACHINE + 2] = NO_MACHINE.to_bytes(2, "little")
        path.write_bytes(content)
    monkeypatch.setattr(kernels, "library", lambda: path)
    assert kernels.instructions() is None
    model = load(fakes.language_model(tmp_path / "out"), threads=1)
    assert model.session.intaglio_kernels == ()
    assert model.generate([5, 6, 7], max_new_tokens=3).token_ids  # type: ignore[union-attr]


@needs_kernels
@needs_plain_memory
def test_running_out_of_memory_in_a_matmul_is_reported() -> None:
    """Run out of memory in the kernel: x and y exist before the limit, its buffer for the int8 copy of x does not fit.

    The buffer is larger than 64 MB, the address space that glibc reserves for each arena of malloc: a thread that has
    ended leaves its arena to others, and a smaller buffer fits into it despite the limit.
    """
    told = run_limited(
        """
import resource
from pathlib import Path
import numpy as np, onnxruntime as ort
from intaglio.errors import PromptError
from intaglio.runtime.engine.session import Session
from intaglio.tests.runtime.kernels.test_matmul import Case, session

made = Session(Path("out"), None, "cpu", 2, ort, session(Case(16, 1000, 4, 32, True, False).model()))
x, y = np.zeros((1, 160_000, 1000), dtype=np.float32), np.zeros((1, 160_000, 16), dtype=np.float32)
binding = made.raw.io_binding()
binding.bind_cpu_input("x", x)
binding.bind_output("y", "cpu", 0, np.float32, y.shape, y.ctypes.data)
now = int(next(line for line in open("/proc/self/status") if line.startswith("VmSize")).split()[1]) * 1024
resource.setrlimit(resource.RLIMIT_AS, (now + 10_000_000,) * 2)
try:
    made.run_bound(binding)
except PromptError as error:
    print(error)
"""
    )
    assert told.startswith("not enough memory to run the model (")
    assert "intaglio: failed to allocate memory" in told
    assert told.endswith("give less text, or fewer texts at once\n")


@needs_plain_memory
def test_running_out_of_memory_in_loading_is_reported(tmp_path: Path) -> None:
    table = np.zeros((fakes.VOCAB, 150_000), dtype=np.float32)  # in the graph itself: it is copied
    folder = fakes.head(tmp_path / "out", "text-classification", table)
    told = run_limited(
        f"""
import resource
from intaglio.errors import ArtifactError
from intaglio.runtime import load
from intaglio.runtime.engine.onnxruntime import import_onnxruntime

import_onnxruntime()
now = int(next(line for line in open("/proc/self/status") if line.startswith("VmSize")).split()[1]) * 1024
resource.setrlimit(resource.RLIMIT_AS, (now + 100_000_000,) * 2)
try:
    load({str(folder)!r}, threads=1)
except ArtifactError as error:
    print(error)
"""
    )
    assert told.startswith(f"{folder}: not enough memory to load the model (")
    assert told.endswith("); free some, or quantize the model to fewer bits\n")
