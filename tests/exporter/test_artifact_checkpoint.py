"""An artifact gives back the tensors of the checkpoint it was made from, whole and in chunks of rows."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from intaglio.artifact import MANIFEST, TensorEntry, read_manifest
from intaglio.errors import ArtifactError, CheckpointError, UsageError
from intaglio.exporter import artifact_checkpoint as module
from intaglio.exporter import export
from intaglio.exporter.artifact_checkpoint import ArtifactCheckpoint
from intaglio.models.checkpoint import Checkpoint
from intaglio.models.loading.parameters import load_module
from intaglio.models.weight_source import row_ranges
from intaglio.tests import tiny
from intaglio.tests.files.artifact_files import contents, data_of, write_manifest

Q = "model.layers.1.self_attn.q_proj.weight"
V = "model.layers.1.self_attn.v_proj.weight"
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def both(tmp_path: Path, values: dict[str, Any], **options: Any) -> tuple[Checkpoint, ArtifactCheckpoint]:
    prefix = options.pop("prefix", None)
    folder = tiny.write(tmp_path / "checkpoint", values, prefix=prefix)
    export(folder, tmp_path / "artifact", **options)
    return Checkpoint(folder), ArtifactCheckpoint(tmp_path / "artifact")


def assert_same(checkpoint: Checkpoint, artifact: ArtifactCheckpoint, dtype: torch.dtype = torch.float32) -> None:
    assert artifact.tensors.keys() == checkpoint.tensors.keys()
    for name, info in checkpoint.tensors.items():
        expected = checkpoint.tensor(name).to(dtype)
        assert artifact.tensors[name].shape == info.shape
        found = artifact.tensor(name)
        assert found.dtype == dtype
        assert torch.equal(found, expected), name
        pieces = list(artifact.rows(name, 1000))
        assert [start for start, _ in pieces] == [start for start, _ in row_ranges(artifact.tensors[name], 1000)]
        assert torch.equal(torch.cat([piece for _, piece in pieces]), expected), name
        if len(info.shape) == 2:
            stop = min(info.shape[1], 29)
            assert torch.equal(artifact.columns(name, 3, stop), expected[:, 3:stop]), name


@pytest.mark.parametrize(
    ("family", "target", "tied"),
    [("qwen2", "ort", True), ("qwen2", "standard", False), ("exaone4", "ort", False), ("exaone4", "standard", True)],
)
def test_every_tensor_comes_back(tmp_path: Path, family: str, target: str, tied: bool) -> None:
    checkpoint, artifact = both(tmp_path, tiny.config(family, tie_word_embeddings=tied), target=target)
    assert_same(checkpoint, artifact)
    assert artifact.config == checkpoint.config
    assert artifact.task == checkpoint.task
    assert artifact.origin == artifact.manifest.source
    assert artifact.origin.id == "checkpoint"
    expected, found = checkpoint.load().state_dict(), load_module(artifact).state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


@pytest.mark.parametrize(
    ("family", "task", "target", "precision"),
    [
        ("qwen2", "text-classification", "ort", "fp16"),
        ("exaone4", "token-classification", "standard", "fp32"),
        ("qwen2", "question-answering", "ort", "bf16"),
        ("exaone4", "feature-extraction", "ort", "fp32"),
    ],
)
def test_every_head_in_the_precision_of_the_artifact(
    tmp_path: Path, family: str, task: str, target: str, precision: str
) -> None:
    values = tiny.config(family, task)
    checkpoint, artifact = both(tmp_path, values, target=target, precision=precision)
    assert artifact.task == task
    assert_same(checkpoint, artifact, DTYPES[precision])


def test_the_trunk_keeps_its_prefix(tmp_path: Path) -> None:
    """Check that the prefix does not depend on the task."""
    values = tiny.config("exaone4", "question-answering", num_hidden_layers=1, layer_types=["full_attention"])
    checkpoint, artifact = both(tmp_path, values, prefix="model.")
    assert artifact.trunk_prefix == "model."
    assert_same(checkpoint, artifact)


def test_a_task_other_than_the_architectures(tmp_path: Path) -> None:
    checkpoint, artifact = both(tmp_path, tiny.config("qwen2"), task="feature-extraction")
    assert artifact.task == "feature-extraction"
    assert artifact.tensors.keys() == checkpoint.tensors.keys() - {"lm_head.weight"}
    expected = checkpoint.load("feature-extraction").state_dict()
    found = load_module(artifact).state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    with pytest.raises(CheckpointError, match=r"lm_head.weight, which text-generation with this config.json needs"):
        load_module(artifact, "text-generation")


def test_exporting_it_gives_the_same_bytes(artifact: Path, tmp_path: Path) -> None:
    """Check that square and packed tensors are not transposed or reordered."""
    opened = ArtifactCheckpoint(artifact)
    state = {name: opened.tensor(name) for name in opened.tensors}
    assert torch.equal(state[Q], tiny.weights(tiny.config("qwen2"))[Q])
    assert not torch.equal(state[Q], state[Q].t())
    again = tiny.write(tmp_path / "again", tiny.config("qwen2"), tensors=state)
    export(again, tmp_path / "second")
    assert data_of(tmp_path / "second").read_bytes() == data_of(artifact).read_bytes()


def test_no_more_is_mapped_at_once_than_a_block(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read packed, transposed, plain and one-dimensional tensors."""
    opened = ArtifactCheckpoint(artifact)
    expected = {name: (opened.tensor(name), list(opened.rows(name, 1000))) for name in opened.tensors}
    monkeypatch.setattr(module, "BLOCK_BYTES", 2048)
    mapped: list[int] = []
    real = np.memmap

    def watched(*arguments: Any) -> Any:
        height, width = arguments[4]
        mapped.append(height * width)
        return real(*arguments)

    monkeypatch.setattr(np, "memmap", watched)
    for name, (whole, pieces) in expected.items():
        assert torch.equal(opened.tensor(name), whole)
        for (_, found), (_, piece) in zip(opened.rows(name, 1000), pieces, strict=True):
            assert torch.equal(found, piece)
    assert max(mapped) <= 2048
    assert sum(mapped) >= sum(whole.nbytes for whole, _ in expected.values())


# Refusals


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Return the files of an artifact by name."""
    folder = tmp_path_factory.mktemp("exported")
    export(tiny.write(folder / "checkpoint", tiny.config("qwen2")), folder / "artifact")
    return contents(folder / "artifact")


@pytest.fixture
def artifact(tmp_path: Path, exported: dict[str, bytes]) -> Path:
    folder = tmp_path / "artifact"
    (folder / "onnx").mkdir(parents=True)
    for name, data in exported.items():
        (folder / name).write_bytes(data)
    return folder


def change(folder: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    values = json.loads((folder / MANIFEST).read_text())
    edit(values)
    (folder / MANIFEST).write_text(json.dumps(values))


def entry(name: str, **changes: Any) -> Callable[[dict[str, Any]], object]:
    return lambda values: values["tensors"][name].update(changes)


def test_quantized_already(artifact: Path) -> None:
    write_manifest(artifact, replace(read_manifest(artifact), precision="int4"))
    source = read_manifest(artifact).source.id
    with pytest.raises(UsageError) as caught:
        ArtifactCheckpoint(artifact)
    assert str(caught.value) == (
        f"{artifact} is quantized already, to int4; quantize the checkpoint it was made from ({source}) "
        "or its unquantized artifact"
    )


def test_one_tensor_quantized_already(artifact: Path) -> None:
    change(artifact, entry("model.layers.0.self_attn.o_proj.weight", precision="int8"))
    with pytest.raises(UsageError, match="is quantized already, to int8; quantize the checkpoint"):
        ArtifactCheckpoint(artifact)


def test_a_folder_that_is_not_an_artifact(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"is not an intaglio artifact: it has no intaglio.json"):
        ArtifactCheckpoint(tmp_path)


def test_a_weight_file_of_another_size(artifact: Path) -> None:
    size = data_of(artifact).stat().st_size
    with data_of(artifact).open("ab") as file:
        file.write(b"x")
    with pytest.raises(ArtifactError) as caught:
        ArtifactCheckpoint(artifact)
    assert str(caught.value) == (
        f"{data_of(artifact)} has {size + 1:,} bytes, the manifest says {size:,}; export the model again"
    )


@pytest.mark.parametrize("name", ["onnx/model.onnx", "config.json"])
def test_a_graph_or_config_that_was_changed(artifact: Path, name: str) -> None:
    data = (artifact / name).read_bytes()
    (artifact / name).write_bytes(data[:-2] + bytes([data[-2] ^ 1]) + data[-1:])
    with pytest.raises(ArtifactError, match=rf"{name}: its SHA-256 differs from the manifest's; export the model"):
        ArtifactCheckpoint(artifact)


@pytest.mark.parametrize("name", ["onnx/model.onnx", "onnx/model.onnx_data", "config.json"])
def test_a_missing_file(artifact: Path, name: str) -> None:
    (artifact / name).unlink()
    with pytest.raises(ArtifactError, match=rf"{name} is missing; export the model again"):
        ArtifactCheckpoint(artifact)


def test_a_manifest_without_weights(artifact: Path) -> None:
    change(artifact, lambda values: values["files"].pop("onnx/model.onnx_data"))
    with pytest.raises(ArtifactError, match=r"the manifest lists no onnx/model.onnx_data; export the model again"):
        ArtifactCheckpoint(artifact)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"sources": [V, V]}, r"is \(96, 64\) in the graph and \(96, 64\) in the manifest, not \(64, 64\)"),
        ({"shape": [64, 96]}, r"is \(96, 64\) in the graph and \(64, 96\) in the manifest, not \(96, 64\)"),
        ({"precision": "fp16"}, r"is \(96, 64\) in the graph"),
        ({"sources": ["model.layers.9.mlp.down_proj.weight"]}, "the graph and the config have no such weight"),
    ],
)
def test_a_manifest_that_contradicts_the_graph(artifact: Path, changes: dict[str, Any], complaint: str) -> None:
    name = "model.layers.1.mlp.down_proj.weight"
    change(artifact, entry(name, **changes))
    with pytest.raises(ArtifactError, match=rf"artifact: {name}: {complaint}.*; export the model again"):
        ArtifactCheckpoint(artifact)


def test_a_tensor_that_the_graph_lacks(artifact: Path) -> None:
    extra = TensorEntry("fp32", (64, 64), (Q,))
    manifest = read_manifest(artifact)
    (artifact / MANIFEST).write_text(replace(manifest, tensors=manifest.tensors | {"more": extra}).to_json())
    with pytest.raises(ArtifactError, match=r"artifact: more: the graph and the config have no such weight"):
        ArtifactCheckpoint(artifact)


def test_a_file_that_shrinks_after_it_was_opened(artifact: Path) -> None:
    opened = ArtifactCheckpoint(artifact)
    with data_of(artifact).open("rb+") as file:
        file.truncate(5000)
    with pytest.raises(ArtifactError, match=rf"model.onnx_data: tensor {Q} cannot be read \(.*; export the model"):
        opened.tensor(Q)
