"""Every Python block of README and docs/ passes mypy --strict and pyright, as a user's file elsewhere."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from .pages import PAGES, ROOT, blocks, name_of


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the blocks of each page into one file, each line at the number that it has in the page."""
    folder = tmp_path_factory.mktemp("user")
    for page in PAGES:
        lines: list[str] = []
        for block in blocks(page, "python"):
            lines += [""] * (block.line - 1 - len(lines)) + block.text.splitlines()
        if lines:
            name = name_of(page).removesuffix(".md").replace("/", "_").replace("-", "_").replace(".", "_")
            (folder / f"{name}.py").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def run(command: Sequence[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def test_mypy_accepts_them(files: Path) -> None:
    """Use the project's settings, which are strict, so that the cache of `scripts/lint` serves."""
    command = ["--config-file", str(ROOT / "pyproject.toml"), *(str(path) for path in sorted(files.glob("*.py")))]
    assert run([sys.executable, "-m", "mypy", *command], ROOT) == ""


@pytest.mark.slow
def test_mypy_accepts_them_without_the_settings_of_this_project(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MYPYPATH", str(ROOT / ".dev"))
    cache = ROOT / ".mypy_cache" / "docs"
    command = ["--strict", "--follow-imports=silent", f"--cache-dir={cache}", "--config-file=", "."]
    assert run([sys.executable, "-m", "mypy", *command], files) == ""


def test_pyright_accepts_them(files: Path) -> None:
    pytest.importorskip("pyright", reason="pyright comes with the extra dev")
    # Other runtimes are not installed; mypy's settings name them, and it reports every other import that is missing.
    settings = {"extraPaths": [str(ROOT / ".dev")], "pythonVersion": "3.11", "reportMissingImports": False}
    (files / "pyrightconfig.json").write_text(json.dumps(settings), encoding="utf-8")
    assert run([sys.executable, "-m", "pyright", "--pythonpath", sys.executable], files) == ""
