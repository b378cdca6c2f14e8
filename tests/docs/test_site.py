"""The site of docs/ builds without a warning."""

import os
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from .pages import ROOT


def test_mkdocs_builds_the_site_strictly(tmp_path: Path) -> None:
    for package in ("mkdocs", "material", "mkdocstrings"):
        pytest.importorskip(package, reason="mkdocs comes with the extra docs")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "site/benchmarks/runtime/index.html").exists()
    for package in ("runtime", "exporter", "parity"):
        page = (tmp_path / "site/api" / package / "index.html").read_text("utf-8")
        documented = {anchor.split(".")[-1] for anchor in re.findall(r'<h\d id="([\w.]+)"', page)}
        assert set(import_module(f"intaglio.{package}").__all__) <= documented
