"""Artifacts for each device: every node satisfies the device's rules, and a CPU gives the same tokens."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from intaglio.artifact import Manifest
from intaglio.contract import PAST, cache_names
from intaglio.devices.findings import findings
from intaglio.devices.lint import GraphFacts
from intaglio.devices.presets import DEVICES, PRESETS, DeviceName
from intaglio.devices.rules import MatMul
from intaglio.errors import UnsupportedError, UsageError
from intaglio.exporter import QuantizeOptions, export, quantize
from intaglio.runtime import load
from intaglio.tests.devices.conftest import Made
from intaglio.tests.tiny import config, write

PROMPT = [5, 17, 30, 42, 99, 100, 7]


def tokens(folder: Path) -> list[int]:
    with load(folder, task="text-generation", kernels="onnxruntime") as model:
        return list(model.generate(PROMPT, max_new_tokens=8, temperature=0.0).token_ids)


@pytest.mark.parametrize("device", DEVICES)
def test_the_graph_satisfies_every_rule_of_its_device(made: Made, device: DeviceName) -> None:
    out, manifest = made[device]
    facts = GraphFacts(out / manifest.graph, manifest)
    found = [(finding.effect, finding.reason) for finding in facts.findings(device)]
    # What no preset can change: the sizes of the model, and operators that a device lacks.
    expected = {
        "qnn": ("slow", "attention and rotation run on the CPU"),
        "webgpu": ("slow", "a weight of 128 x 64 takes no integer products (DP4A)"),
    }
    assert len(found) == (device in expected)
    if found:
        effect, beginning = expected[device]
        assert found[0][0] == effect
        assert found[0][1].startswith(beginning)
    on_the_cpu = {"com.microsoft::GroupQueryAttention": 4} if device == "qnn" else {}
    assert facts.placement(device).floats == on_the_cpu


def test_the_rules_are_read_from_the_nodes_as_onnx_reads_them(made: Made) -> None:
    for out, manifest in made.values():
        facts = GraphFacts(out / manifest.graph, manifest)
        model = onnx.load(out / manifest.graph, load_external_data=False)
        nodes = [node for node in model.graph.node if node.op_type == "MatMulNBits"]
        attributes = [{a.name: a.i for a in node.attribute} for node in nodes]
        assert [m.block_size for m in facts.matmuls] == [a["block_size"] for a in attributes]
        assert [(m.rows, m.columns, m.bits) for m in facts.matmuls] == [(a["N"], a["K"], a["bits"]) for a in attributes]
        assert [m.bias for m in facts.matmuls] == [len(node.input) > 5 for node in nodes]
        assert [m.symmetric for m in facts.matmuls] == [len(node.input) < 4 or not node.input[3] for node in nodes]
        assert facts.opset == next(i.version for i in model.opset_import if i.domain == "")
        counted = [f"{n.domain}::{n.op_type}" if n.domain else n.op_type for n in model.graph.node]
        assert [name for name, _ in facts.operators()] == counted


def test_each_preset_changes_what_it_says(made: Made) -> None:
    plain, its_manifest = made["cpu"]
    cpu = GraphFacts(plain / its_manifest.graph, its_manifest)
    assert any(m.bias for m in cpu.matmuls)
    assert all(a.packed_qkv and a.rotates for a in cpu.attentions)
    for device, (_, manifest) in made.items():
        if device != "cpu":
            wanted = PRESETS[device].activations  # type: ignore[index]
            assert manifest.model.cache_dtype == {"fp32": "float32", "fp16": "float16"}[wanted]
    assert made["directml"][1].operators["com.microsoft::RotaryEmbedding"] == 8
    assert "RMSNormalization" in made["qnn"][1].operators
    assert "com.microsoft::SkipSimplifiedLayerNormalization" not in made["qnn"][1].operators


def logits(folder: Path, manifest: Manifest, prompt: list[int]) -> np.ndarray[Any, Any]:
    """Return a prompt's logits [S, V] by float products: with accuracy level 0, on ONNX Runtime's kernels."""
    model = onnx.load(folder / manifest.graph, load_external_data=False)
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name == "accuracy_level":
                attribute.i = 0
    path = folder / f"{manifest.graph}.float"  # beside its weights
    onnx.save(model, path)
    session = onnxruntime.InferenceSession(str(path))
    facts = manifest.model
    shape = (1, facts.num_key_value_heads, 0, facts.head_dim)
    feeds = {name: np.zeros(shape, facts.cache_dtype) for name in cache_names(PAST, facts.num_hidden_layers)}
    ids = np.array([prompt])
    feeds |= {"input_ids": ids, "attention_mask": np.ones_like(ids), "logits_to_keep": np.array([0])}
    path.unlink()
    found: np.ndarray[Any, Any] = np.asarray(session.run(["logits"], feeds)[0])[0]
    return found


def test_half_precision_is_within_its_error(made: Made) -> None:
    exact = logits(*made["openvino"], PROMPT)
    for device in ("cuda", "directml"):
        error = np.abs(logits(*made[device], PROMPT) - exact).max() / np.abs(exact).max()
        assert 0 < error < 2**-8, device


def test_a_cpu_runs_the_artifact_of_every_device(made: Made) -> None:
    """Step by step it finds the tokens of the exact logits, or ones whose logits are as large within the rounding."""
    assert tokens(made["openvino"][0]) == tokens(made["cpu"][0])
    for device in ("cuda", "webgpu", "directml"):
        found = tokens(made[device][0])
        exact = logits(*made["openvino"], [*PROMPT, *found])[len(PROMPT) - 1 : -1]
        chosen = exact[np.arange(len(found)), found]
        assert (exact.max(axis=1) - chosen < 0.02 * np.abs(exact).max()).all(), device


def test_qnns_weights_have_no_zero_points(made: Made) -> None:
    quantized = [entry for entry in made["qnn"][1].tensors.values() if entry.quantization]
    assert all(entry.quantization.symmetric and entry.quantization.bits == 4 for entry in quantized)  # type: ignore[union-attr]
    assert tokens(made["qnn"][0])


REFUSED = [
    ("cuda", "int4", {"block_size": 256}, "blocks of 256 with 4 bits: the kernel for one row takes 16, 32, 64 and 128"),
    (
        "cuda",
        "int4",
        {"activations": "fp32"},
        "CUDA cannot run this: GroupQueryAttention has kernels for fp16 and bf16",
    ),
    ("qnn", "int4", {"block_size": 128}, "does not run on QNN: blocks of 128: QNN takes 32; give --block-size 32"),
    ("qnn", "int8", {}, "does not run on QNN: weights of 8 bits: QNN multiplies by 4 bits only; give --precision int4"),
    ("qnn", "int4", {"activations": "fp16"}, "MatMulNBits computes in fp16: QNN takes fp32; give --activations fp32"),
    ("qnn", "int4", {"keep": {"lm_head": "int8"}}, "lm_head does not run on QNN: weights of 8 bits"),
    ("webgpu", "int4", {"activations": "bf16"}, "WebGPU cannot run this: there is no bf16; give --precision fp16"),
    ("directml", "int4", {"activations": "bf16"}, "DirectML cannot run this: there is no bf16"),
    ("directml", "int4", {"block_size": 256}, "blocks of 256 do not divide the 64 columns of a weight"),
]


@pytest.mark.parametrize(("device", "precision", "options", "message"), REFUSED)
def test_what_a_device_cannot_run_is_refused(
    device_source: Path, tmp_path: Path, device: DeviceName, precision: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises((UnsupportedError, UsageError)) as caught:
        quantize(
            device_source,
            tmp_path / "out",
            precision=precision,
            options=QuantizeOptions("rtn", **options),
            device=device,
        )
    assert message in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("device", ["webgpu", "directml"])
def test_target_standard_is_refused_where_attention_would_run_on_the_cpu(
    device_source: Path, tmp_path: Path, device: DeviceName
) -> None:
    with pytest.raises(UnsupportedError, match=r"cannot run this: target standard .* give --target ort"):
        export(device_source, tmp_path / "out", target="standard", precision="fp16", device=device)


def test_directml_refuses_windows_that_it_would_ignore(tmp_path: Path) -> None:
    folder = write(tmp_path / "source", config("exaone4"))
    with pytest.raises(UnsupportedError, match="does not read local_window_size: texts longer than the window of 6"):
        export(folder, tmp_path / "out", precision="fp16", device="directml")


def test_an_unknown_device_is_named(device_source: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="device is 'tpu'; choose one of cuda, webgpu, directml, qnn, openvino"):
        export(device_source, tmp_path / "out", device="tpu")  # type: ignore[arg-type]


def test_without_a_choice_blocks_are_those_that_the_device_runs_best(device_source: Path, tmp_path: Path) -> None:
    """int8 has blocks of 16 where they gain most, and WebGPU wants 32."""
    manifest = quantize(device_source, tmp_path / "out", precision="int8", device="webgpu")
    entries = {name: entry.quantization for name, entry in manifest.tensors.items() if entry.quantization}
    assert {entry.block_size for name, entry in entries.items() if "embed_tokens" not in name} == {32}
    assert {entry.block_size for name, entry in entries.items() if "embed_tokens" in name} == {16}  # only looked up


def test_a_rule_counts_the_nodes_that_break_it() -> None:
    (finding,) = findings("directml", matmuls=[MatMul(4, 32, 8, 64, bias=True)] * 3)
    assert (finding.effect, finding.count) == ("fails", 3)
