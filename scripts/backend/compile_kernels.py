"""Compile the library of kernels: every C file under runtime/kernels/native/ becomes one shared library.

    python scripts/backend/compile_kernels.py                  in the source tree, beside runtime/kernels/__init__.py
    python scripts/backend/compile_kernels.py --target NAME    for another platform (targets.py), in build/kernels/NAME/

The library uses no symbol of Python, so one file serves every version of it. The C compiler is the one that the
environment variable CC names, or the first of cc, gcc and clang that is found. It must take GCC's options, as GCC and
Clang do. For another platform it is Zig's, unless CC names one. CFLAGS, LDFLAGS and, on macOS, ARCHFLAGS are passed on.
"""

import argparse
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
from typing import TYPE_CHECKING

if TYPE_CHECKING or __package__:
    from .targets import TARGETS, Target
else:  # a script, or the build backend's neighbour
    from targets import TARGETS, Target

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


def find_cross_compiler(target: Target) -> list[str]:
    """Return the command of the C compiler for another platform.

    Raises:
        CompileError: there is none.
    """
    if os.environ.get("CC"):
        return find_compiler()
    found = target.compiler()
    if found is None:
        raise CompileError(
            f"no C compiler for {target.name} was found; install Zig (pip install ziglang), or name one in the "
            "environment variable CC"
        )
    return found


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
        link = ["-shared", *map(str, objects.values()), "-o", str(made), *_link_options(system, command[0])]
        _run([*command, *link, *shlex.split(os.environ.get("LDFLAGS", ""))])
        made.replace(target)


def _machine_options(system: str) -> list[str]:
    """Return the options that choose the processor: on macOS those that the wheel's tag promises."""
    if system != "darwin" or sys.platform != "darwin":
        return []
    if "ARCHFLAGS" in os.environ:
        return shlex.split(os.environ["ARCHFLAGS"])
    both = sysconfig.get_platform().endswith("universal2")
    return [word for name in (("arm64", "x86_64") if both else (platform.machine(),)) for word in ("-arch", name)]


def _system_options(system: str, compiler: str) -> list[str]:
    if system != "win32":
        return ["-fPIC", "-pthread"]
    # GCC does not align vectors on the stack on Windows (GCC bug 54412), so they are moved as unaligned ones.
    return ["-Wa,-muse-unaligned-vector-move"] if _is_gcc(compiler) else []


def _link_options(system: str, compiler: str) -> list[str]:
    strip = ["-s"] if Path(compiler).stem == "zig" else []  # it adds what debuggers read
    if system != "win32":
        return ["-pthread", "-lm", *strip]
    return ["-static-libgcc"] if _is_gcc(compiler) else strip  # Windows has no library of GCC's


def _is_gcc(compiler: str) -> bool:
    return Path(compiler).stem.endswith("gcc")


def _run(command: Sequence[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise CompileError(f"{command[0]}: {error.strerror}") from error
    if done.returncode != 0:
        raise CompileError(f"{shlex.join(command)}\n{done.stderr}")
    sys.stderr.write(done.stderr)  # warnings


def main() -> None:
    parser = argparse.ArgumentParser(description="Compile the library of kernels.")
    parser.add_argument("--target", choices=TARGETS, help="another platform")
    name = parser.parse_args().target
    try:
        if name is None:
            library = KERNELS / library_name()
            compile_library(library)
        else:
            target = TARGETS[name]
            library = KERNELS.parents[1] / "build" / "kernels" / name / library_name(target.system)
            compile_library(library, find_cross_compiler(target), target.system)
    except CompileError as error:
        sys.exit(f"compile_kernels: {error}")
    print(library)


if __name__ == "__main__":
    main()
