"""Artifacts with a checkpoint's own codes compute what its dequantized weights compute, in both targets."""

from pathlib import Path
from typing import Any

import onnx
import onnxruntime as ort
import pytest
import torch
from intaglio.artifact import Target
from intaglio.exporter import QuantizeOptions, export
from intaglio.models.checkpoint import Checkpoint
from intaglio.tests import tiny
from intaglio.tests.exporter import drive
from intaglio.tests.exporter.stored.grids import EVERY, Kind, by_end, install
from intaglio.tests.files.artifact_files import graph_of

TESTS = {"quant_method": "tests"}
FLOAT = QuantizeOptions(accuracy_level=0)
KINDS = {
    "4 bits": Kind(),
    "4 bits, groups of 128": Kind(block_size=128),
    "4 bits, zero points": Kind(zeros="any"),
    "4 bits, a row": Kind(block_size=1 << 20),
    "2 bits, groups of 16": Kind(2, 16, zeros="any"),
    "3 bits, groups of 64": Kind(3, 64, zeros="any"),
    "5 bits": Kind(5, zeros="least", offsets="any"),
    "6 bits, groups of 16": Kind(6, 16, scales="single"),
    "7 bits": Kind(7, zeros="any"),
    "8 bits": Kind(8),
    "8 bits, zero points": Kind(8, 64, zeros="any"),
    "8 bits, a row": Kind(8, 1 << 20, scales="single"),
    "8 bits, groups of 256": Kind(8, 256),
    "groups of 96": Kind(4, 96, zeros="any"),
    "scales in float32": Kind(scales="single"),
    "offsets": Kind(zeros="least", offsets="any"),
    "offsets and zero points": Kind(zeros="any", offsets="any", scales="single"),
    "offsets that are multiples": Kind(zeros="least", offsets="multiples"),
    "act-order": Kind(zeros="any", ordered=True),
    "act-order, offsets": Kind(4, 64, zeros="least", offsets="any", ordered=True),
}


SMALL: dict[str, dict[str, Any]] = {
    "qwen2": {"num_hidden_layers": 1},
    "exaone4": {"num_hidden_layers": 2, "layer_types": ["sliding_attention", "full_attention"]},
}


def write(folder: Path, family: str, **changes: Any) -> Path:
    """Write a checkpoint that says it is quantized; ``install`` makes its weights."""
    return tiny.write(folder, tiny.config(family, quantization_config=TESTS, **SMALL[family], **changes))


def graph(folder: Path) -> drive.CachedGraph:
    """Return the graph with float activations in both targets."""
    found = drive.CachedGraph(folder)
    if found.target == "standard":  # ONNX Runtime makes MatMulNBits of it, with int8 activations
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "0")
        found.session = ort.InferenceSession(graph_of(folder), options, providers=["CPUExecutionProvider"])
    return found


@pytest.mark.parametrize("target", ["ort", "standard"])
@pytest.mark.parametrize("name", KINDS)
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
