"""Run a command with kernels that are compiled with AddressSanitizer and UndefinedBehaviorSanitizer.

    python scripts/backend/sanitized.py python -m pytest tests/runtime/kernels

The library is build/sanitized/_kernels.so, compiled anew when a source or this file is newer; the environment variable
INTAGLIO_KERNELS_LIBRARY makes intaglio load it in place of its own. Python is not instrumented, so the sanitizers'
libraries are preloaded, with that of C++ for ONNX Runtime's exceptions, and leaks of Python's own are not reported.
Where the compiler has no sanitizers, the reason is printed and the command does not run.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from compile_kernels import CompileError, compile_library, find_compiler, headers, library_name, sources

LIBRARY = Path(__file__).parents[2] / "build" / "sanitized" / library_name()
CHECKS = (
    "address",
    "alignment",
    "bounds",
    "float-cast-overflow",
    "integer-divide-by-zero",
    "shift",
    "signed-integer-overflow",
)
FLAGS = (
    "-O1",
    "-g1",
    "-w",
    "-fno-omit-frame-pointer",
    "-fno-wrapv",
    f"-fsanitize={','.join(CHECKS)}",
    "-fno-sanitize-recover=all",
)
LINK_FLAGS = "-fsanitize=address,undefined"
PRELOADED = ("libasan.so", "libubsan.so", "libstdc++.so")
OPTIONS = {
    "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1:max_allocation_size_mb=2048:hard_rss_limit_mb=8192",
    "UBSAN_OPTIONS": "print_stacktrace=1",
}


def runtimes(compiler: Sequence[str]) -> list[str]:
    """Return the paths of the libraries to preload; without those that the compiler does not have."""
    found = []
    for name in PRELOADED:
        command = [*compiler, f"-print-file-name={name}"]
        path = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
        if Path(path).is_absolute() and Path(path).exists():
            found.append(path)
    return found


def missing(compiler: Sequence[str]) -> str | None:
    """Return why nothing can be compiled with sanitizers, or None."""
    if not sys.platform.startswith("linux"):
        return f"the sanitizers are set up for Linux alone, and this is {sys.platform}"
    if len(runtimes(compiler)) < len(PRELOADED):
        return f"{compiler[0]} has no {' or no '.join(PRELOADED)}"
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "empty.c")
        source.write_text("int empty;\n")
        command = [*compiler, *FLAGS, LINK_FLAGS, "-fPIC", "-shared", str(source), "-o", str(Path(folder, "empty.so"))]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    return None if done.returncode == 0 else f"{compiler[0]} cannot compile with sanitizers: {done.stderr.strip()}"


def flags(compiler: Sequence[str]) -> list[str]:
    """Return the options of the compiler, without the instruction sets that this processor lacks: they take long."""
    found = list(FLAGS)
    told = subprocess.run([*compiler, "--version"], capture_output=True, text=True, check=False).stdout
    if "clang" not in told:  # checks as calls: half of the time to compile
        found += ["--param", "asan-instrumentation-with-call-threshold=0"]
    if "avx_vnni" not in Path("/proc/cpuinfo").read_text().split():
        found.append("-DWITHOUT_AVX_VNNI")
    return found


def environment(compiler: Sequence[str]) -> Mapping[str, str]:
    """Return what a process needs in its environment to run with the compiled library."""
    return {"INTAGLIO_KERNELS_LIBRARY": str(LIBRARY), "LD_PRELOAD": " ".join(runtimes(compiler)), **OPTIONS}


def compile_sanitized(compiler: Sequence[str]) -> None:
    """Compile the library unless it is newer than every source.

    Raises:
        CompileError: The compiler fails.
    """
    made_of = [*sources(), *headers(), Path(__file__)]
    if LIBRARY.exists() and LIBRARY.stat().st_mtime > max(path.stat().st_mtime for path in made_of):
        return
    os.environ["CFLAGS"] = " ".join([*flags(compiler), os.environ.get("CFLAGS", "")])
    os.environ["LDFLAGS"] = " ".join([LINK_FLAGS, os.environ.get("LDFLAGS", "")])
    compile_library(LIBRARY, compiler)


def main(command: Sequence[str]) -> None:
    """Compile the library, and become the command."""
    try:
        compiler = find_compiler()
        if reason := missing(compiler):
            print(f"sanitized: skipped: {reason}", file=sys.stderr)
            return
        compile_sanitized(compiler)
    except CompileError as error:
        sys.exit(f"sanitized: {error}")
    os.execvpe(command[0], [*command], {**os.environ, **environment(compiler)})


if __name__ == "__main__":
    main(sys.argv[1:])
