"""What each runtime makes of an artifact, and the lines and the JSON that `intaglio inspect` prints of that."""

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from intaglio.artifact import Manifest
from intaglio.cli.main import cli
from intaglio.devices.expert_rules import EXPERT_RULES, SEPARATE_RULES, Experts, SeparateExperts
from intaglio.devices.libraries import LIBRARIES, obstacles
from intaglio.devices.lint import GraphFacts
from intaglio.devices.presets import DEVICES, TITLES
from intaglio.devices.rules import (
    ATTENTION_RULES,
    LOOKUP_RULES,
    MATMUL_RULES,
    WHOLE_RULES,
    Attention,
    Lookup,
    MatMul,
    Whole,
)
from intaglio.devices.runtimes import PROVIDERS, RUNTIMES, supported
from intaglio.publishing import snippets
from intaglio.tests.devices.conftest import Made

SAMPLES = (
    (WHOLE_RULES, Whole("text-generation", "ort", "int4", "fp32")),
    (MATMUL_RULES, MatMul(4, 32, 64, 64)),
    (ATTENTION_RULES, Attention(packed_qkv=True, rotates=True)),
    (LOOKUP_RULES, Lookup(scales_are_stored=False)),
    (EXPERT_RULES, Experts("QMoE")),
    (SEPARATE_RULES, SeparateExperts(6)),
)


def verdicts(folder: Path, manifest: Manifest) -> dict[str, str]:
    found = supported(folder, manifest)
    assert tuple(support.runtime for support in found) == RUNTIMES
    assert all((support.verdict == "runs") == (not support.reasons) for support in found)
    return {support.runtime: support.verdict for support in found}


def test_an_artifact_for_no_device_in_particular(made: Made) -> None:
    found = verdicts(*made["cpu"])
    assert found == {
        "intaglio, CPU": "runs",
        "ONNX Runtime, CPU": "runs",
        "ONNX Runtime, CUDA": "runs slowly",
        "ONNX Runtime, WebGPU": "runs slowly",
        "ONNX Runtime, DirectML": "does not run",
        "ONNX Runtime, QNN": "runs slowly",
        "OpenVINO": "runs in some packages",
        "onnxruntime-genai": "runs",
        "optimum": "runs",
        "transformers.js": "runs",
    }


@pytest.mark.parametrize("device", DEVICES)
def test_the_artifact_of_a_device_runs_there(made: Made, device: Any) -> None:
    assert verdicts(*made[device])[PROVIDERS[device]] == ("runs slowly" if device in ("qnn", "webgpu") else "runs")


def test_a_required_input_keeps_libraries_out(made: Made) -> None:
    folder, manifest = made["openvino"]
    (genai,) = [support for support in supported(folder, manifest) if support.runtime == "onnxruntime-genai"]
    assert (genai.verdict, [reason.what for reason in genai.reasons]) == (
        "does not run",
        ["it does not give the input logits_to_keep"],
    )


def test_inspect_and_the_card_agree_on_the_libraries(made: Made) -> None:
    folder, manifest = made["cpu"]
    for family, task, expected in (
        ("qwen2", "text-generation", ("runs", "runs", "runs")),
        ("exaone4", "text-generation", ("runs", "runs with a setting", "runs with a setting")),
        ("exaone4", "feature-extraction", ("does not run", "runs", "runs")),
        ("qwen2", "token-classification", ("does not run", "runs", "runs with a setting")),
        ("exaone4", "question-answering", ("does not run", "runs", "runs with a setting")),
    ):
        other = replace(manifest, family=family, task=task)  # type: ignore[arg-type]
        found = {one.runtime: one for one in supported(folder, other) if one.runtime in LIBRARIES}
        assert tuple(one.verdict for one in found.values()) == expected, (family, task)
        on_card = set(snippets.runtimes(other, other.precision))
        left_out = {"transformers.js"} if task == "question-answering" else set()  # its pipeline cannot
        assert (
            on_card & set(LIBRARIES)
            == {name for name, one in found.items() if one.verdict != "does not run"} - left_out
        )
        for one in found.values():
            assert [reason.remedy for reason in one.reasons] == [
                obstacle.remedy
                for obstacle in obstacles(one.runtime, other)  # type: ignore[arg-type]
            ]
    remedies = [one.remedy for one in obstacles("transformers.js", replace(manifest, family="exaone4"))]
    assert remedies == ['set config.model_type = "qwen2"']


def test_inspect_lists_every_runtime(made: Made) -> None:
    folder = str(made["directml"][0])
    lines = CliRunner().invoke(cli, ["inspect", folder]).stdout.splitlines()
    start = next(index for index, line in enumerate(lines) if line.startswith("runtimes"))
    assert lines[start].split(None, 1) == [
        "runtimes",
        "intaglio, CPU: runs slowly: fp16 is computed in fp32 and converted back and forth",
    ]
    assert "            ONNX Runtime, DirectML: runs" in lines[start:]
    found = json.loads(CliRunner().invoke(cli, ["inspect", folder, "--json"]).stdout)["runtimes"]
    assert [support["runtime"] for support in found] == list(RUNTIMES)
    reasons = [reason for support in found for reason in support["reasons"]]
    assert all(reason["what"] and reason["remedy"] and reason["source"] for reason in reasons)


def test_a_damaged_graph_has_no_list(made: Made, tmp_path: Path) -> None:
    folder, manifest = made["cpu"]
    for damaged in (b"", b"\xff" * 40, (folder / manifest.graph).read_bytes()[:-9]):
        (tmp_path / manifest.graph).parent.mkdir(exist_ok=True)
        (tmp_path / manifest.graph).write_bytes(damaged)
        with pytest.raises(ValueError):  # noqa: PT011 - the kind is what inspect relies on
            supported(tmp_path, manifest)


def test_what_keeps_a_cuda_graph_from_being_captured(made: Made) -> None:
    folder, manifest = made["cuda"]
    assert GraphFacts(folder / manifest.graph, manifest).cuda_graph_obstacles() == ["ArgMax runs on the CPU"]


def test_every_rule_says_why_what_to_do_and_where_it_is_stated() -> None:
    for table, sample in SAMPLES:
        assert tuple(table) == DEVICES
        for rules in table.values():
            for rule in rules:
                assert rule.says(sample)  # type: ignore[arg-type]
                assert rule.remedy
                assert "/" in rule.source or rule.source.startswith(("run with", "docs"))
                assert isinstance(rule.holds(sample), bool)  # type: ignore[arg-type]
    assert tuple(TITLES) == tuple(PROVIDERS) == DEVICES
    assert {field.name for field in fields(MatMul)} >= {"bits", "block_size", "rows", "columns"}
