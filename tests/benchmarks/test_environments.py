"""The environments of the peers."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
from intaglio.benchmarks.artifacts import environments


@pytest.mark.parametrize("tool", ["llama.cpp", "llama.cpp-avx2", "llama-server"])
def test_what_is_built_here_is_no_wheel_that_pip_built_with_other_options(
    tool: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[dict[str, str]] = []

    def run(command: Any, env: dict[str, str], **options: Any) -> None:
        del options
        if "install" in command:
            given.append(env)
        (tmp_path / tool).mkdir(exist_ok=True)

    monkeypatch.setattr(subprocess, "run", run)
    assert environments.install(tool, tmp_path / tool) is not None
    assert [env["PIP_NO_CACHE_DIR"] for env in given] == ["1"]
