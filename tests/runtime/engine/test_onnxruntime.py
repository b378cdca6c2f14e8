"""An onnxruntime package that is missing or installed twice."""

import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
from intaglio.errors import DependencyError
from intaglio.runtime import load
from intaglio.runtime.engine import onnxruntime as onnxruntime_module
from intaglio.tests.runtime import fakes


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    return fakes.language_model(tmp_path / "lm")


def test_onnxruntime_missing(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(DependencyError, match=r"onnxruntime cannot be imported .*pip install 'intaglio\[cpu\]'"):
        load(artifact)


def test_onnxruntime_installed_twice(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime_module, "distribution", lambda name: name)
    with pytest.raises(DependencyError, match="onnxruntime and onnxruntime-gpu are both installed"):
        load(artifact)

    def only_gpu(name: str) -> str:
        if name != "onnxruntime-gpu":
            raise PackageNotFoundError(name)
        return name

    monkeypatch.setattr(onnxruntime_module, "distribution", only_gpu)
    assert load(artifact).manifest.task == "text-generation"
