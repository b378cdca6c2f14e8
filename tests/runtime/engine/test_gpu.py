"""Opening an artifact on a GPU: its options, the memory that it asks for, and what it is refused for."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from intaglio.artifact import FileEntry, read_manifest
from intaglio.errors import ArtifactError, UnsupportedError
from intaglio.machine import GpuMemory
from intaglio.runtime import load
from intaglio.runtime.engine.refusals import check_precision
from intaglio.runtime.engine.sizes import cache_bytes, needs_windows
from intaglio.tests.runtime import fake_gpu, fakes
from intaglio.tests.runtime.fake_gpu import FakeGpu
from intaglio.tests.runtime.fakes import text_generator


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> FakeGpu:
    return fake_gpu.install(monkeypatch)


def with_weights(folder: Path, size: int) -> Path:
    """Let the manifest have weights of so many bytes."""
    manifest = read_manifest(folder)
    files = {**manifest.files, manifest.data: FileEntry("0" * 64, size)}
    return fakes.rewrite_manifest(folder, files=files)


def test_cuda_takes_what_is_asked_for_and_keeps_float32(tmp_path: Path, gpu: FakeGpu) -> None:
    lm = text_generator(fakes.language_model(tmp_path / "lm"), device="cuda")
    lm.generate([5, 6], max_new_tokens=2)
    options = {"device_id": "0", "arena_extend_strategy": "kSameAsRequested", "use_tf32": "0"}
    assert len(gpu.providers) > 1  # the model's session, and small graphs
    assert all(providers == [("CUDAExecutionProvider", options)] for providers in gpu.providers)


def test_weights_that_do_not_fit_are_refused_before_they_are_loaded(tmp_path: Path, gpu: FakeGpu) -> None:
    folder = with_weights(fakes.language_model(tmp_path / "lm"), 19_100_000_000)
    manifest = read_manifest(folder)
    gpu.memory = GpuMemory("NVIDIA Test", 8_000_000_000)
    with pytest.raises(ArtifactError) as error:
        fake_gpu.open_folder(folder, manifest)
    assert str(error.value) == (
        f"{folder}: the weights take 19,100 MB, and 8,000 MB of memory on NVIDIA Test are free; free some, load it "
        "with device='cpu', or quantize the model to fewer bits"
    )
    assert gpu.providers == []


def test_windows_are_kept_where_the_longest_text_does_not_fit_otherwise(tmp_path: Path) -> None:
    folder = with_weights(fakes.language_model(tmp_path / "lm", layer_windows=(6, None)), 1000)
    manifest = read_manifest(folder)
    whole = 1000 + cache_bytes(manifest.model, manifest.model.context_length, windowed=False)
    assert needs_windows(manifest, GpuMemory("NVIDIA Test", whole - 1))
    assert not needs_windows(manifest, GpuMemory("NVIDIA Test", whole))
    assert not needs_windows(manifest, None)
    assert not needs_windows(replace(manifest, target="standard"), GpuMemory("NVIDIA Test", 0))
    without = replace(manifest, model=replace(manifest.model, layer_windows=(None, None)))
    assert not needs_windows(without, GpuMemory("NVIDIA Test", 0))


def test_an_encoder_of_fp32_runs_on_cuda(tmp_path: Path, gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("intaglio.runtime.engine.opening.check_precision", check_precision)
    table = np.ones((fakes.VOCAB, 4), dtype=np.float32)
    folder = fakes.head(tmp_path / "embedder", "feature-extraction", table)
    with pytest.raises(UnsupportedError, match="GroupQueryAttention takes fp16 and bf16 only"):
        load(folder, device="cuda")
    model = read_manifest(folder).model
    fakes.rewrite_manifest(folder, model=replace(model, attention="bidirectional"))
    assert load(folder, device="cuda", task="feature-extraction").session.device == "cuda"
