"""Errors for missing packages name the extra that installs them; the peak memory is measured."""

import os
import subprocess
import sys
from pathlib import Path

import numpy
import pytest
from intaglio.machine import peak_rss

ROOT = Path(__file__).parents[2]
WITHOUT = "import sys; sys.modules['{missing}'] = None; from intaglio.cli.main import main; main()"


@pytest.mark.parametrize("arguments", [("export", "tiny", "out"), ("inspect", "tiny")])
@pytest.mark.parametrize("missing", ["torch"])
def test_checkpoints_need_the_export_extra(tmp_path: Path, arguments: tuple[str, ...], missing: str) -> None:
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "config.json").write_text("{}")
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT.format(missing=missing), *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT / ".dev")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (
        2,
        "",
        f"Error: reading checkpoints needs the package {missing}, which is not installed; "
        "install it with: pip install 'intaglio[export]'\n",
    )


def test_peak_memory_counts_what_was_held() -> None:
    block = numpy.ones(1 << 26, numpy.uint8)
    peak = peak_rss()
    assert peak is not None
    assert block.nbytes < peak < 1 << 40
