"""The library as the compiler makes it: its name, its symbols, and compilers for other systems and processors."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from intaglio.runtime import kernels
from intaglio.scripts.backend import compile_kernels

EXPORTED = {"RegisterCustomOps", "intaglio_instructions"}


def needs(name: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(name) is None, reason=f"needs {name}")


def test_the_runtime_looks_for_the_file_that_the_build_makes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert compile_kernels.library_name() == kernels.LIBRARY
    monkeypatch.setattr(kernels, "__file__", str(tmp_path / "__init__.py"))
    assert kernels.library() is None
    (tmp_path / kernels.LIBRARY).touch()
    assert kernels.library() == tmp_path / kernels.LIBRARY


@needs("nm")
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads an ELF file")
@pytest.mark.skipif(kernels.library() is None, reason="needs the compiled library")
def test_the_library_exports_what_is_called_and_nothing_else() -> None:
    command = ["nm", "-D", "--defined-only", "--format=posix", str(kernels.library())]
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert {line.split()[0] for line in listed.splitlines()} == EXPORTED
