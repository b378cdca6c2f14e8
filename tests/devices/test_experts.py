"""Mixtures of experts on each device: the CPU's operators and nodes of their own, and what is said of either."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from intaglio.artifact import Manifest, Task
from intaglio.devices.expert_rules import Experts
from intaglio.devices.findings import findings
from intaglio.devices.libraries import TRANSFORMERS_JS, obstacles
from intaglio.devices.lint import GraphFacts
from intaglio.devices.presets import DEVICES, DeviceName
from intaglio.devices.rules import Effect
from intaglio.devices.runtimes import PROVIDERS, supported
from intaglio.exporter import QuantizeOptions, export, quantize
from intaglio.runtime import load
from intaglio.tests import tiny

SEPARATE: dict[str, tuple[str, ...]] = {
    "cuda": ("each of 6 experts waits at each step until the CPU knows the number of its tokens (NonZero)",),
    "webgpu": (
        "the tokens of each of 6 experts are found on the CPU, with a copy there and back: WebGPU has no kernel",
    ),
    "directml": ("each of 6 experts waits at each step until the CPU knows the number of its tokens (NonZero)",),
    "qnn": ("the tokens of each of 6 experts are found on the CPU, with a copy there and back: QNN has no builder",),
    "openvino": (),
}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One layer, a mixture of six experts."""
    sizes: dict[str, Any] = {"num_hidden_layers": 1, "mlp_only_layers": [], "shared_expert_intermediate_size": 64}
    values = tiny.config("qwen2_moe", **sizes)
    return tiny.write(tmp_path_factory.mktemp("source"), values)


@pytest.fixture(scope="module")
def made(source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Manifest]]:
    root = tmp_path_factory.mktemp("made")
    options = QuantizeOptions(method="rtn")
    return {
        device or "cpu": (
            root / (device or "cpu"),
            quantize(source, root / (device or "cpu"), options=options, device=device),
        )
        for device in (None, *DEVICES)
    }


def found(folder: Path, manifest: Manifest, device: DeviceName) -> dict[str, Effect]:
    facts = GraphFacts(folder / manifest.graph, manifest)
    return {finding.reason: finding.effect for finding in facts.findings(device)}


def test_the_usual_artifact_has_one_node_that_other_devices_do_not_run(made: dict[str, Any]) -> None:
    folder, manifest = made["cpu"]
    facts = GraphFacts(folder / manifest.graph, manifest)
    assert facts.experts == [Experts("QMoE", "fp32", zero_points=True, router_weights=True)]
    said = {device: found(folder, manifest, device) for device in DEVICES}
    assert said["cuda"]["QMoE has kernels for fp16 and bf16 only, and this computes in fp32"] == "host"
    assert said["webgpu"]["QMoE has zero points, which the kernel refuses"] == "fails"
    assert said["webgpu"]["QMoE has the input router_weights, which the kernel refuses"] == "fails"
    assert said["directml"]["QMoE computes the experts, which DirectML has no kernel for"] == "host"
    assert said["qnn"]["QMoE computes the experts, which QNN has no kernel for"] == "host"
    assert said["openvino"]["QMoE computes the experts, which OpenVINO does not know"] == "fails"
    verdicts = {support.runtime: support.verdict for support in supported(folder, manifest)}
    assert verdicts["ONNX Runtime, CPU"] == "runs"
    for name in (PROVIDERS["webgpu"], PROVIDERS["openvino"]):
        assert verdicts[name] == "does not run"
    assert verdicts[PROVIDERS["cuda"]] == verdicts[PROVIDERS["qnn"]] == "runs slowly"


def test_weights_that_cuda_takes_for_rearranged_are_wrong() -> None:
    def said(**facts: Any) -> list[tuple[Effect, str]]:
        return [(one.effect, one.reason) for one in findings("cuda", experts=[Experts("QMoE", "fp16", **facts)])]

    ((effect, reason),) = said()
    assert effect == "wrong"
    assert reason.startswith("QMoE takes weights for rearranged where weights_prepacked is not 0")
    assert said(raw_weights=True) == []
    assert findings("cuda", experts=[Experts("MoE", "fp16")]) == []
    ((effect, reason),) = [(one.effect, one.reason) for one in findings("webgpu", experts=[Experts("MoE")])]
    assert (effect, reason) == ("host", "MoE computes the experts, which WebGPU has no kernel for")


@pytest.mark.parametrize("device", DEVICES)
def test_an_artifact_for_a_device_has_nodes_for_each_expert_and_a_note(
    made: dict[str, Any], device: DeviceName
) -> None:
    folder, manifest = made[device]
    facts = GraphFacts(folder / manifest.graph, manifest)
    assert facts.experts == []
    assert [one.count for one in facts.separate] == [6]
    said = found(folder, manifest, device)
    for beginning in SEPARATE[device]:
        assert [effect for reason, effect in said.items() if reason.startswith(beginning)] == ["slow"]
        assert any(f"runs slowly: {beginning}" in note for note in manifest.notes)
    assert not any("experts" in reason for reason in said if not reason.startswith(SEPARATE[device] or ("-",)))
    without = facts.placement(device).floats
    assert ("NonZero" in without) == (device in ("webgpu", "qnn"))
    assert "NonZero copies a number to the CPU" in facts.cuda_graph_obstacles()


@pytest.mark.parametrize("device", ["webgpu", "cuda"])
def test_outputs_of_experts_are_added_in_float32(made: dict[str, Any], device: str) -> None:
    """WebGPU refuses to add float16 in ScatterND."""
    folder, manifest = made[device]
    model = onnx.shape_inference.infer_shapes(onnx.load(folder / manifest.graph, load_external_data=False))
    kinds = {value.name: value.type.tensor_type.elem_type for value in model.graph.value_info}
    scattered = [node for node in model.graph.node if node.op_type == "ScatterND"]
    assert len(scattered) == 6
    assert {kinds[node.output[0]] for node in scattered} == {onnx.TensorProto.FLOAT}
    with load(folder, task="text-generation") as half, load(made["cpu"][0], task="text-generation") as whole:
        tokens = list(range(20))
        np.testing.assert_allclose(half.score(tokens).logprobs, whole.score(tokens).logprobs, atol=0.15)


def test_a_float_mixture_for_a_device_runs_on_a_cpu(source: Path, tmp_path: Path) -> None:
    manifest = export(source, tmp_path / "out", precision="fp16", device="cuda")
    assert "com.microsoft::MoE" not in manifest.operators
    with load(tmp_path / "out", task="text-generation") as model:
        assert len(model.generate([5, 6, 7], max_new_tokens=4, temperature=0.0).token_ids) == 4


@pytest.mark.parametrize("task", ["text-generation", "text-classification"])
def test_transformers_js_has_a_class_for_text_alone(made: dict[str, Any], task: Task) -> None:
    _, manifest = made["cpu"]
    found = obstacles(TRANSFORMERS_JS, replace(manifest, task=task))
    said = [(one.effect, one.what, one.remedy) for one in found]
    missing = ("setting", f"it has no class for {task} of qwen2_moe", 'set config.model_type = "bert"')
    assert said == ([] if task == "text-generation" else [missing])
