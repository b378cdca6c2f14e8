"""Compile the library of kernels: every C file under runtime/kernels/native/ becomes one shared library.

    python scripts/backend/compile_kernels.py     builds it in the source tree, beside runtime/kernels/__init__.py

The library uses no symbol of Python, so one file serves every version of it. The C compiler is the one that the
environment variable CC names, or the first of cc, gcc and clang that is found. It must take GCC's options, as GCC and
Clang do. CFLAGS, LDFLAGS and, on macOS, ARCHFLAGS are passed on.
"""

import os
import platform
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

KERNELS = Path(__file__).parents[2] / "runtime" / "kernels"
NATIVE = KERNELS / "native"
NAMES = {"darwin": "_kernels.dylib", "win32": "_kernels.dll"}
"""The library's file name for each ``sys.platform``; the same table as in runtime/kernels/__init__.py."""

COMPILE = ("-std=gnu11", "-O3", "-DNDEBUG", "-fwrapv", "-ffp-contract=off", "-fvisibility=hidden", "-Wall", "-Wextra")
"""Contracting a * b + c would round once instead of twice, and only where the processor can: other bits on ARM."""


class CompileError(Exception):
    """The C compiler is missing or fails; the message has its output."""


def library_name(system: str = sys.platform) -> str:
    """Return the file name of the library on a system, named as in ``sys.platform``."""
    return NAMES.get(system, "_kernels.so")


def sources() -> list[Path]:
    """Return the C files."""
    return sorted(NATIVE.rglob("*.c"))


def headers() -> list[Path]:
    """Return the header files."""
    return sorted(NATIVE.rglob("*.h"))


def find_compiler() -> list[str]:
    """Return the command of the C compiler.

    Raises:
        CompileError: No C compiler was found.
    """
    if os.environ.get("CC"):
        command = shlex.split(os.environ["CC"])
        if shutil.which(command[0]) is None:
            raise CompileError(f"the C compiler {command[0]}, which the environment variable CC names, was not found")
        return command
    for name in ("clang", "gcc") if sys.platform == "win32" else ("cc", "gcc", "clang"):
        if shutil.which(name) is not None:
            return [name]
    raise CompileError(
        "no C compiler was found; install one (on Debian: gcc), or name it in the environment variable CC"
    )


def compile_library(target: Path, compiler: Sequence[str] | None = None, system: str = sys.platform) -> None:
    """Compile the library.

    Args:
        target: The file to write; it is replaced once the library is complete.
        compiler: The compiler's command; by default ``find_compiler()``.
        system: The system that the compiler compiles for, named as in ``sys.platform``.

    Raises:
        CompileError: The compiler is missing or fails.
    """
    command = [*(find_compiler() if compiler is None else compiler), *_machine_options(system)]
    flags = [*COMPILE, f"-I{NATIVE}", *_system_options(system, command[0]), *shlex.split(os.environ.get("CFLAGS", ""))]
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        objects = {path: Path(folder, f"{number}.o") for number, path in enumerate(sources())}
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(lambda path: _run([*command, *flags, "-c", str(path), "-o", str(objects[path])]), objects))
        made = Path(folder, target.name)
        link = ["-shared", *map(str, objects.values()), "-o", str(made), *_link_options(system)]
        _run([*command, *link, *shlex.split(os.environ.get("LDFLAGS", ""))])
        made.replace(target)


def _machine_options(system: str) -> list[str]:
    """Return the options that choose the processor: on macOS those that the wheel's tag promises."""
    if system != "darwin":
        return []
    if "ARCHFLAGS" in os.environ:
        return shlex.split(os.environ["ARCHFLAGS"])
    both = sysconfig.get_platform().endswith("universal2")
    return [word for name in (("arm64", "x86_64") if both else (platform.machine(),)) for word in ("-arch", name)]


def _system_options(system: str, compiler: str) -> list[str]:
    if system != "win32":
        return ["-fPIC", "-pthread"]
    # GCC does not align vectors on the stack on Windows (GCC bug 54412), so they are moved as unaligned ones.
    return ["-Wa,-muse-unaligned-vector-move"] if "gcc" in Path(compiler).name else []


def _link_options(system: str) -> list[str]:
    return [] if system == "win32" else ["-pthread", "-lm"]


def _run(command: Sequence[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise CompileError(f"{command[0]}: {error.strerror}") from error
    if done.returncode != 0:
        raise CompileError(f"{shlex.join(command)}\n{done.stderr}")
    sys.stderr.write(done.stderr)  # warnings


if __name__ == "__main__":
    library = KERNELS / library_name()
    try:
        compile_library(library)
    except CompileError as error:
        sys.exit(f"compile_kernels: {error}")
    print(library)
