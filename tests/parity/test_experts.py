"""Parity of mixtures of experts: sound artifacts have no findings, and faults of router and experts are named."""

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
import pytest
import torch
from intaglio.artifact import MANIFEST
from intaglio.exporter import QuantizeOptions, export, quantize
from intaglio.parity import CheckOptions, Report, check
from intaglio.tests import tiny
from intaglio.tests.files.artifact_files import data_of, graph_of

SHORT = CheckOptions(windows=1, window=40, steps=4, longest=64)
MIXTURE, EXPERTS = "model.layers.0.mlp", "model.layers.0.mlp.experts"


def source(folder: Path) -> Path:
    """Write a checkpoint of a mixture and an MLP, whose embeddings outweigh what the layers add."""
    values = tiny.config("qwen2_moe", num_hidden_layers=2)
    tensors = {
        name: tensor if "norm" in name else tensor * (10 if "embed" in name else 0.4)
        for name, tensor in tiny.weights(values).items()
    }
    return tiny.write(folder, values, tensors=tensors, tokenizer=True)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return a checkpoint and its artifact; the artifact is changed by tests, and changed back."""
    folder = tmp_path_factory.mktemp("experts")
    source(folder / "source")
    export(folder / "source", folder / "out")
    return folder / "source", folder / "out"


def checked(sound: tuple[Path, Path]) -> Report:
    return check(sound[1], sound[0], options=SHORT)


def test_a_sound_artifact_is_faithful(sound: tuple[Path, Path]) -> None:
    report = checked(sound)
    assert report.verdict == "faithful"
    assert report.findings == ()


@pytest.mark.parametrize(
    "method", ["rtn", pytest.param("gptq", marks=pytest.mark.slow), pytest.param("awq", marks=pytest.mark.slow)]
)
def test_a_quantized_artifact_has_no_findings(tmp_path: Path, sound: tuple[Path, Path], method: str) -> None:
    options = QuantizeOptions(method=method, windows=None if method == "rtn" else 1)  # type: ignore[arg-type]
    quantize(sound[0], tmp_path / "out", precision="int4", options=options)
    report = checked((sound[0], tmp_path / "out"))
    assert report.findings == ()
    assert report.verdict in ("faithful", "drifted")


@contextmanager
def changed(folder: Path, path: Path, content: bytes) -> Iterator[None]:
    """Replace a file of an artifact, and its entry in the manifest, inside the block."""
    manifest = folder / MANIFEST
    before = path.read_bytes(), manifest.read_bytes()
    path.write_bytes(content)
    values = json.loads(before[1])
    entry = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
    values["files"][path.relative_to(folder).as_posix()] = entry
    manifest.write_text(json.dumps(values), encoding="utf-8")
    try:
        yield
    finally:
        path.write_bytes(before[0])
        manifest.write_bytes(before[1])


def scale_to_one(model: onnx.ModelProto) -> None:
    (node,) = (node for node in model.graph.node if node.op_type == "MoE")
    (attribute,) = (one for one in node.attribute if one.name == "normalize_routing_weights")
    attribute.i = 1


def leave_out_the_shared_expert(model: onnx.ModelProto) -> None:
    (add,) = (node for node in model.graph.node if node.name == f"{MIXTURE}/Add")
    (experts,) = (node for node in model.graph.node if node.op_type == "MoE")
    add.input[1] = add.input[0] = experts.output[0]
    add.op_type = "Max"  # of twice the same


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (scale_to_one, "the weights of a token's experts are scaled to the sum 1"),
        (leave_out_the_shared_expert, "the shared expert is left out"),
    ],
)
def test_a_fault_of_the_mixture_is_named(
    sound: tuple[Path, Path], change: Callable[[onnx.ModelProto], None], cause: str
) -> None:
    model = onnx.load(graph_of(sound[1]), load_external_data=False)
    change(model)
    with changed(sound[1], graph_of(sound[1]), model.SerializeToString()):
        report = checked(sound)
    assert report.verdict == "broken"
    assert [(finding.module, finding.cause) for finding in report.findings] == [(MIXTURE, cause)]


def test_swapped_experts_are_found(sound: tuple[Path, Path]) -> None:
    """The weights of the first two experts change places in the file."""
    graph = onnx.load(graph_of(sound[1]), load_external_data=False).graph
    (tensor,) = (tensor for tensor in graph.initializer if tensor.name == f"{EXPERTS}.down_proj.weight")
    facts = {entry.key: entry.value for entry in tensor.external_data}
    path, offset = data_of(sound[1]), int(facts.get("offset", 0))
    before = path.read_bytes()
    size = 64 * 32 * 4
    first, second = (before[offset + i * size : offset + (i + 1) * size] for i in range(2))
    with changed(sound[1], path, before[:offset] + second + first + before[offset + 2 * size :]):
        report = checked(sound)
    assert report.verdict == "broken"
    faults = [tensor.fault for tensor in report.tensors if tensor.fault is not None]
    assert len(faults) == 1
    assert torch.allclose(torch.tensor([t.error for t in report.tensors if t.fault is None]), torch.zeros(()))
