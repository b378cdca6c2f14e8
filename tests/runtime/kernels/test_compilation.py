"""The compiled library has the expected name and symbols, also from compilers for other systems and processors."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from intaglio.runtime import kernels
from intaglio.scripts.backend import compile_kernels

EXPORTED = {"RegisterCustomOps", "intaglio_instructions", "intaglio_repack_rows"}
EXPORTED |= {"intaglio_begin_weight_file", "intaglio_end_weight_file"}


def needs(name: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(name) is None, reason=f"needs {name}")


def test_the_runtime_finds_the_built_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert compile_kernels.library_name() == kernels.LIBRARY
    monkeypatch.setattr(kernels, "__file__", str(tmp_path / "__init__.py"))
    assert kernels.library() is None
    (tmp_path / kernels.LIBRARY).touch()
    assert kernels.library() == tmp_path / kernels.LIBRARY


@needs("nm")
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads an ELF file")
@pytest.mark.skipif(kernels.library() is None, reason="needs the compiled library")
def test_the_library_exports_only_what_is_called() -> None:
    command = ["nm", "-D", "--defined-only", "--format=posix", str(kernels.library())]
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert {line.split()[0] for line in listed.splitlines()} == EXPORTED


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
    assert b"RegisterCustomOps" in library.read_bytes()


def test_a_compiler_that_fails_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cc").write_text("#!/bin/sh\necho 'no space left' >&2\nexit 1\n")
    (tmp_path / "cc").chmod(0o755)
    monkeypatch.setenv("CC", f"{tmp_path}/cc -m64")
    with pytest.raises(compile_kernels.CompileError, match=r"(?s)cc -m64 .*\.c.*\nno space left"):
        compile_kernels.compile_library(tmp_path / "out" / "library")
    assert list((tmp_path / "out").iterdir()) == []
