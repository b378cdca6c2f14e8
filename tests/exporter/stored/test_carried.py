"""Artifacts with a checkpoint's own codes compute what its dequantized weights compute, in both targets."""

from pathlib import Path
from typing import Any

import onnx
import onnxruntime as ort
import pytest
import torch
from intaglio.artifact import TARGETS, Target
from intaglio.exporter import QuantizeOptions, export
from intaglio.models.checkpoint import Checkpoint
from intaglio.tests import tiny
from intaglio.tests.exporter import drive
from intaglio.tests.exporter.stored.grids import EVERY, KINDS, by_end, install
from intaglio.tests.files.artifact_files import graph_of

TESTS = {"quant_method": "tests"}
FLOAT = QuantizeOptions(accuracy_level=0)
SMALL: dict[str, dict[str, Any]] = {
    "qwen2": {"num_hidden_layers": 1},
    "exaone4": {"num_hidden_layers": 2, "layer_types": ["sliding_attention", "full_attention"]},
}


def write(folder: Path, family: str, *, quantized: bool = True, tokenizer: bool = False, **changes: Any) -> Path:
    """Write a checkpoint that says whether it is quantized; ``install`` makes its weights."""
    settings: dict[str, Any] = SMALL[family] | ({"quantization_config": TESTS} if quantized else {}) | changes
    return tiny.write(folder, tiny.config(family, **settings), tokenizer=tokenizer)


def graph(folder: Path) -> drive.CachedGraph:
    """Return the graph with float activations in both targets."""
    found = drive.CachedGraph(folder)
    if found.target == "standard":  # ONNX Runtime makes MatMulNBits of it, with int8 activations
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "0")
        found.session = ort.InferenceSession(graph_of(folder), options, providers=["CPUExecutionProvider"])
    return found


QUICK = (
    ("4 bits, zero points", "ort"),
    ("6 bits, groups of 16", "ort"),
    ("act-order, offsets", "ort"),
    ("act-order, offsets", "standard"),
)


@pytest.mark.parametrize(
    ("name", "target"),
    [
        pytest.param(name, target, marks=() if (name, target) in QUICK else pytest.mark.slow)
        for name in KINDS
        for target in TARGETS
    ],
)
def test_logits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, target: Target) -> None:
    number = list(KINDS).index(name)
    install(monkeypatch, by_end(dict.fromkeys(EVERY, KINDS[name])))
    tied = number % 4 > 1
    folder = write(tmp_path / "checkpoint", ("qwen2", "exaone4")[number % 2], tie_word_embeddings=tied)
    options = FLOAT if target == "ort" else None
    manifest = export(folder, tmp_path / "out", target=target, options=options)
    native = Checkpoint(folder).load()
    tokens = drive.ids(288, 20)
    found = drive.chunked(graph(tmp_path / "out"), native, tokens, [15, 5])
    with torch.inference_mode():
        scale = native(tokens).logits.abs().max().item()
    assert found.largest <= 1e-5 * max(1, scale)
    quantized = [entry.quantization for entry in manifest.tensors.values() if entry.quantization]
    assert {one.method for one in quantized} == {"stored"}
    assert max(one.error for one in quantized) <= (6e-8 if KINDS[name].offsets == "any" else 0)
    nodes = onnx.load(graph_of(tmp_path / "out"), load_external_data=False).graph.node
    assert not any(len(node.input) > 4 and node.input[4] for node in nodes if node.op_type == "MatMulNBits")
