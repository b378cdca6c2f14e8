"""The check for machines with a GPU, on the fake one: it passes there, and finds a cache that is wrong."""

from pathlib import Path
from typing import Any

import pytest
from intaglio.artifact import read_manifest
from intaglio.runtime.decoding.in_place import InPlaceDecoder
from intaglio.scripts import check_cuda
from intaglio.tests.runtime import fake_gpu, fakes


@pytest.fixture(autouse=True)
def _few(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_gpu.install(monkeypatch)
    monkeypatch.setattr(check_cuda, "OPERATIONS", 30)


@pytest.mark.parametrize("options", [{"layer_windows": (6, None)}, {"target": "standard"}], ids=["windows", "standard"])
def test_a_right_cache_passes(tmp_path: Path, options: dict[str, Any]) -> None:
    folder = fakes.language_model(tmp_path / "lm", **options)
    found = [check_cuda.exercised(session) for session in check_cuda.sessions(folder, read_manifest(folder))]
    assert [good for good, _ in found] == [True, True][: len(found)]
    assert len(found) == (2 if "layer_windows" in options else 1)


def test_a_cache_whose_copies_are_missing_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def copy(decoder: InPlaceDecoder, source: int, target: int) -> None:
        decoder._set_length(target, decoder.length(source))

    monkeypatch.setattr(InPlaceDecoder, "copy", copy)
    folder = fakes.language_model(tmp_path / "lm")
    (good, line), *_ = map(check_cuda.exercised, check_cuda.sessions(folder, read_manifest(folder)))
    assert not good, line


def test_without_cuda_it_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import onnxruntime

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    assert check_cuda.main([]) == 2
    assert "has no CUDAExecutionProvider" in capsys.readouterr().err
