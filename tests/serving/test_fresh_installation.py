"""``pip install 'intaglio[cpu,serve]'`` into a fresh environment: small, and enough to serve."""

import json
import os
import subprocess
import sys
import venv
from pathlib import Path

import httpx
import pytest
from intaglio.tests.serving.process import TIMEOUT
from intaglio.tests.test_packaging import copy_tree

HEAVY = {"torch", "transformers", "onnx", "onnxscript", "ray", "matplotlib", "openai", "opentelemetry-sdk"}


@pytest.mark.slow
def test_the_extras_for_serving_bring_no_framework(artifacts: dict[str, Path], tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", with_pip=True)
    binaries = tmp_path / "venv" / ("Scripts" if sys.platform == "win32" else "bin")
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    pip = [str(binaries / "python"), "-m", "pip", "--disable-pip-version-check"]
    tree = copy_tree(tmp_path / "tree")
    installed = subprocess.run(
        [*pip, "install", "-q", f"{tree}[cpu,serve]"], env=environment, capture_output=True, text=True, check=False
    )
    if "No matching distribution" in installed.stderr or "ConnectionError" in installed.stderr:
        pytest.skip("needs a package index")
    assert installed.returncode == 0, installed.stderr
    listed = subprocess.run(
        [*pip, "list", "--format", "json"], env=environment, capture_output=True, text=True, check=True
    )
    names = {entry["name"].lower().replace("_", "-") for entry in json.loads(listed.stdout)}
    assert {"intaglio", "onnxruntime", "starlette", "uvicorn", "pydantic", "prometheus-client"} <= names
    assert names & HEAVY == set()
    command = [str(binaries / "intaglio"), "serve", f"qwen2={artifacts['qwen2']}", "--port", "0", "--json"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True, cwd=tmp_path) as server:
        try:
            assert server.stdout is not None
            address = json.loads(server.stdout.readline())["address"]
            body = {"model": "qwen2", "messages": [{"role": "user", "content": "Where is Seoul?"}], "max_tokens": 4}
            answer = httpx.post(f"{address}/v1/chat/completions", json=body, timeout=TIMEOUT)
            assert answer.status_code == 200
            assert answer.json()["usage"]["completion_tokens"] > 0
        finally:
            server.terminate()
        assert server.wait(TIMEOUT) == 0
