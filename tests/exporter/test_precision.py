"""fp16 and bf16 artifacts: their tolerances, and checks against them.

fp16 has 11 bits of mantissa: each rounding loses up to 2^-11 = 4.9e-4 of a value. ONNX Runtime's CPU provider computes
most of an fp16 graph in float32 between casts, so the errors are the rounding of weights, of the tensors between
nodes, and of the cache: some 1e-2 of the logits' scale after a few layers.

bf16 has 8 bits: 3.9e-3 each. The CPU provider has no bf16 kernels, so the graph itself cannot run here. What can be
shown is that it is the right graph with rightly rounded weights: the same graph in float32, its bf16 weights widened,
must equal the native definition with weights and rotary angles rounded to bf16.
"""

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch
from intaglio.artifact import Target, read_manifest
from intaglio.exporter import export
from intaglio.models.checkpoint import Checkpoint
from intaglio.models.rope import RotaryEmbedding
from intaglio.tests import tiny
from intaglio.tests.exporter import drive
from intaglio.tests.files.artifact_files import graph_of
from torch import Tensor

FP16_SHARE_OF_SCALE = 2e-2


@pytest.mark.parametrize(
    ("family", "target"),
    [
        ("exaone4", "ort"),
        ("qwen2", "standard"),
        pytest.param("qwen2", "ort", marks=pytest.mark.slow),
        pytest.param("exaone4", "standard", marks=pytest.mark.slow),
    ],
)
def test_fp16(tmp_path: Path, family: str, target: Target) -> None:
    folder = tiny.write(tmp_path / "checkpoint", tiny.config(family))
    export(folder, tmp_path / "out", precision="fp16", target=target)
    manifest = read_manifest(tmp_path / "out")
    assert {entry.precision for entry in manifest.tensors.values()} <= {"fp16", "fp32"}
    assert [n for n, t in manifest.tensors.items() if t.precision == "fp32"] == ["model.rotary_emb.inv_freq"]
    native = Checkpoint(folder).load()
    rows = [drive.ids(288, 30, seed) for seed in range(2)]
    with torch.inference_mode():
        scale = native(rows[0]).logits.abs().max().item()
    difference = drive.ragged(drive.CachedGraph(tmp_path / "out"), native, rows, [12, 7], steps=18)
    assert 0 < difference.largest <= FP16_SHARE_OF_SCALE * scale
    session = drive.session(tmp_path / "out")
    assert session.get_outputs()[0].type == "tensor(float)"
    assert session.get_inputs()[2].type == "tensor(float16)"


@pytest.mark.parametrize("family", ["qwen2", "exaone4"])
def test_bf16(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str) -> None:
    folder = tiny.write(tmp_path / "checkpoint", tiny.config(family), dtype=torch.bfloat16)
    export(folder, tmp_path / "out", precision="bf16")
    manifest = read_manifest(tmp_path / "out")
    assert [n for n, t in manifest.tensors.items() if t.precision != "bf16"] == ["model.rotary_emb.inv_freq"]
    assert manifest.model.cache_dtype == "bfloat16"
    _widen(graph_of(tmp_path / "out"))

    angles = RotaryEmbedding.forward

    def rounded(self: RotaryEmbedding, positions: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
        cos, sin = angles(self, positions, length)
        return cos.bfloat16().float(), sin.bfloat16().float()

    monkeypatch.setattr(RotaryEmbedding, "forward", rounded)
    rows = [drive.ids(288, 30, seed) for seed in range(2)]
    difference = drive.ragged(drive.CachedGraph(tmp_path / "out"), Checkpoint(folder).load(), rows, [12, 7], steps=18)
    assert difference.agree
    assert difference.largest <= 1e-4


def test_bf16_weights_are_the_checkpoint_s_own_bytes(tmp_path: Path) -> None:
    values = tiny.config("qwen2")
    folder = tiny.write(tmp_path / "checkpoint", values, dtype=torch.bfloat16)
    export(folder, tmp_path / "out", precision="bf16")
    weight = ir.load(graph_of(tmp_path / "out")).graph.initializers["model.embed_tokens.weight"].const_value
    assert weight is not None
    stored = Checkpoint(folder).tensor("model.embed_tokens.weight")
    assert weight.tobytes() == stored.view(torch.uint8).numpy().tobytes()


def _widen(path: Path) -> None:
    """Rewrite a bf16 graph in float32: its weights widened, and what it rounds to bf16 widened behind that."""
    model = ir.load(path)
    for value in model.graph.initializers.values():
        if value.dtype == ir.DataType.BFLOAT16 and value.const_value is not None:
            value.const_value = ir.tensor(value.const_value.numpy().astype(np.float32), name=value.name)
            value.dtype = ir.DataType.FLOAT
    for value in (*model.graph.inputs, *(v for node in model.graph for v in node.outputs)):
        if value.dtype == ir.DataType.BFLOAT16:
            value.dtype = ir.DataType.FLOAT
    for node in list(model.graph):
        if node.op_type == "Cast" and node.attributes["to"].as_int() == ir.DataType.BFLOAT16:
            wide = ir.node("Cast", [node.outputs[0]], {"to": int(ir.DataType.FLOAT)})
            wide.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
            node.outputs[0].type = ir.TensorType(ir.DataType.BFLOAT16)
            node.outputs[0].replace_all_uses_with(wide.outputs[0])
            wide.replace_input_with(0, node.outputs[0])
            model.graph.insert_after(node, wide)
    ir.save(model, path)
