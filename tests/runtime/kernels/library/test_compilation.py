"""The compiled library has the expected name and symbols, also from compilers for other systems and processors."""

import os
import re
import shutil
import sys
from pathlib import Path

import pytest
from intaglio.runtime import kernels
from intaglio.scripts.backend import compile_kernels, targets
from intaglio.scripts.backend.targets import TARGETS, find_zig

from .shared_library import read_library

EXPORTED = {"RegisterCustomOps", "intaglio_instructions", "intaglio_layout", "intaglio_repack_rows"}
EXPORTED |= {"intaglio_begin_weight_file", "intaglio_end_weight_file"}

MADE_BY_LINKERS = {"_mh_dylib_header", "__dso_handle"}  # on macOS
SYSTEM_LIBRARIES = {
    "linux": r"lib(c|m|pthread)\.so\.\d|ld-linux-.*\.so\.\d",
    "darwin": r"/usr/lib/libSystem\.B\.dylib",
    "win32": r"(?i)(kernel32|msvcrt|ntdll|api-ms-win-crt-.*)\.dll",
}


def needs(name: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(name) is None, reason=f"needs {name}")


def test_the_runtime_finds_the_built_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert compile_kernels.library_name() == kernels.LIBRARY
    monkeypatch.setattr(kernels, "__file__", str(tmp_path / "__init__.py"))
    assert kernels.library() is None
    (tmp_path / kernels.LIBRARY).touch()
    assert kernels.library() == tmp_path / kernels.LIBRARY


def check_library(path: Path, system: str) -> None:
    """Check that a library exports only what is called, and needs only libraries that every such system has."""
    found = read_library(path)
    assert found.exported - MADE_BY_LINKERS == EXPORTED
    assert all(re.fullmatch(SYSTEM_LIBRARIES[system], name) for name in found.needed), found.needed


@pytest.mark.skipif("libasan" in os.environ.get("LD_PRELOAD", ""), reason="is linked with AddressSanitizer's libraries")
@pytest.mark.skipif(kernels.library() is None, reason="needs the compiled library")
def test_the_library_exports_only_what_is_called() -> None:
    check_library(Path(str(kernels.library())), sys.platform)


@pytest.mark.parametrize(
    ("compiler", "system"),
    [
        pytest.param("gcc", "linux", marks=needs("gcc")),
        pytest.param("clang", "linux", marks=needs("clang")),
        pytest.param("aarch64-linux-gnu-gcc", "linux", marks=needs("aarch64-linux-gnu-gcc")),
        pytest.param("x86_64-w64-mingw32-gcc", "win32", marks=needs("x86_64-w64-mingw32-gcc")),
    ],
)
@pytest.mark.parametrize("level", ["-O0", pytest.param("-O1", marks=pytest.mark.slow)])
def test_the_library_links_without_warnings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compiler: str, system: str, level: str
) -> None:
    """Compile for Windows and ARM with Debian's cross compilers, gcc-mingw-w64-x86-64 and gcc-aarch64-linux-gnu.

    Some warnings, such as those of variables without a value, need an optimizing compiler.
    """
    monkeypatch.setenv("CFLAGS", f"{level} -Werror")
    library = tmp_path / compile_kernels.library_name(system)
    compile_kernels.compile_library(library, [compiler], system)
    check_library(library, system)


@pytest.mark.slow
@pytest.mark.skipif(find_zig() is None, reason="needs Zig: pip install ziglang")
@pytest.mark.parametrize("name", TARGETS)
def test_the_library_is_compiled_for_each_platform(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("CFLAGS", "-O0 -Werror")
    monkeypatch.delenv("CC", raising=False)
    target = TARGETS[name]
    library = tmp_path / compile_kernels.library_name(target.system)
    compile_kernels.compile_library(library, compile_kernels.find_cross_compiler(target), target.system)
    check_library(library, target.system)


def test_a_platform_without_a_compiler_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(targets, "find_zig", lambda: None)
    with pytest.raises(
        compile_kernels.CompileError,
        match=r"no C compiler for macos-arm64 was found; install Zig \(pip install ziglang\), or name one in .* CC",
    ):
        compile_kernels.find_cross_compiler(TARGETS["macos-arm64"])


def test_a_compiler_that_fails_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cc").write_text("#!/bin/sh\necho 'no space left' >&2\nexit 1\n")
    (tmp_path / "cc").chmod(0o755)
    monkeypatch.setenv("CC", f"{tmp_path}/cc -m64")
    with pytest.raises(compile_kernels.CompileError, match=r"(?s)cc -m64 .*\.c.*\nno space left"):
        compile_kernels.compile_library(tmp_path / "out" / "library")
    assert list((tmp_path / "out").iterdir()) == []
