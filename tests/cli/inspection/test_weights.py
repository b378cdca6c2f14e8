"""The description of a quantized artifact's weights, against figures computed by hand."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from intaglio.artifact import Manifest, Quantization, TensorEntry, read_manifest
from intaglio.cli.inspection.weights import (
    bits_per_weight,
    describe_formats,
    estimated_kl,
    part_of,
    rows_by_kind,
    stored_bytes,
    stored_weights,
)
from intaglio.tests.cli.conftest import MakeArtifact, Run
from intaglio.tests.files.artifact_files import write_manifest

LAYER = "model.layers.0."
SOURCES = tuple(f"{LAYER}self_attn.{name}_proj.weight" for name in "qkv")
TENSORS = {
    # [4096, 80] in blocks of 32: three to a row, the last of them padded
    "model.embed_tokens.codes": TensorEntry(
        "int8", (4096, 80), ("model.embed_tokens.weight",), Quantization(8, 32, True, "rtn", 4, 0.005, 0.001)
    ),
    "model.embed_tokens.scales": TensorEntry("fp16", (4096, 3), ()),
    f"{LAYER}self_attn.qkv_proj.codes": TensorEntry(
        "int4", (128, 64), SOURCES, Quantization(4, 32, False, "gptq", 0, 0.1, 0.02)
    ),
    f"{LAYER}self_attn.qkv_proj.scales": TensorEntry("fp16", (128, 2), ()),
    f"{LAYER}self_attn.qkv_proj.zero_points": TensorEntry("uint8", (128, 1), ()),
    f"{LAYER}mlp.up_proj.codes": TensorEntry(
        "int4", (96, 64), (f"{LAYER}mlp.up_proj.weight",), Quantization(4, 64, False, "gptq", 4, 0.2, 0.03)
    ),
    f"{LAYER}mlp.up_proj.scales": TensorEntry("fp16", (96, 1), ()),
    f"{LAYER}mlp.up_proj.zero_points": TensorEntry("uint8", (96, 1), ()),
    "model.layers.1.mlp.up_proj.weight": TensorEntry("fp32", (64, 96), ("model.layers.1.mlp.up_proj.weight",)),
    "model.norm.weight": TensorEntry("fp32", (64,), ("model.norm.weight",)),
    "rotary_emb.cos": TensorEntry("fp32", (100, 8), ()),
}
PARAMETERS = 4096 * 80 + 128 * 64 + 96 * 64 + 64 * 96 + 64
BYTES = {
    "int8": 4096 * 96,
    "fp32": 4 * (64 * 96 + 64),
    "fp16 scales": 2 * (4096 * 3 + 128 * 2 + 96),
    "int4": (128 * 64 + 96 * 64) // 2,
    "uint8 zero points": 128 + 96,
    "fp32 computed": 4 * 800,
}


@pytest.fixture
def folder(make_artifact: MakeArtifact) -> Path:
    folder = make_artifact()
    write_manifest(folder, replace(read_manifest(folder), tensors=TENSORS, precision="int4"))
    return folder


@pytest.fixture
def manifest(folder: Path) -> Manifest:
    return read_manifest(folder)


def test_parameters_and_bytes_by_precision(run: Run, folder: Path) -> None:
    found = json.loads(run("inspect", folder, "--json").stdout)
    assert found["parameters"] == PARAMETERS
    assert {name: group["bytes"] for name, group in found["precisions"].items()} == BYTES
    assert found["weight_bytes"] == sum(BYTES.values()) == found["memory"]["weight_bytes"]
    assert found["precisions"]["int4"] == {"tensors": 2, "elements": 128 * 64 + 96 * 64, "bytes": BYTES["int4"]}
    assert found["memory"]["precision"] == "int4"


def test_bits_per_weight_count_all_that_belongs_to_weights(manifest: Manifest) -> None:
    belongs = sum(BYTES.values()) - BYTES["fp32 computed"]
    assert bits_per_weight(manifest) == pytest.approx(8 * belongs / PARAMETERS)


def test_codes_are_padded_to_blocks_for_onnx_runtimes_operators_only() -> None:
    codes = TensorEntry("int4", (3, 33), ("w",), Quantization(4, 32, True, "rtn", 4, 0.1))
    assert stored_bytes(codes, "ort") == 3 * 64 // 2
    assert stored_bytes(codes, "standard") == 50  # 99 halves of a byte
    assert stored_bytes(TensorEntry("fp16", (3, 33), ("w",)), "ort") == 198


def test_scales_and_zero_points_are_recognized(manifest: Manifest) -> None:
    parts = {name: part_of(name, manifest) for name in TENSORS}
    assert {name for name, part in parts.items() if part == "scales"} == {n for n in TENSORS if n.endswith(".scales")}
    assert {name for name, part in parts.items() if part == "zero points"} == {n for n in TENSORS if "zero" in n}
    # An alias in another shape has a longer name; a tensor named like scales but without codes is not recognized.
    scales = TENSORS["model.embed_tokens.scales"]
    renamed = replace(
        manifest, tensors=TENSORS | {"model.embed_tokens.scales.rows": scales, "rotary_emb.scales": scales}
    )
    assert part_of("model.embed_tokens.scales.rows", renamed) == "scales"
    assert part_of("rotary_emb.scales", renamed) is None


def test_describe_formats(manifest: Manifest) -> None:
    weights = stored_weights(manifest)
    assert describe_formats(weights) == "int4: 4 weights, blocks of 32 (3) and 64 (1); int8: 1, blocks of 32; fp32: 1"
    assert describe_formats(weights[:1]) == "int8: 1 weight, blocks of 32"


def test_kinds_of_projections(manifest: Manifest) -> None:
    assert list(rows_by_kind(stored_weights(manifest))) == [
        ("embed_tokens", "1 int8/32", "error 0.50 %", "KL 1.00e-03"),
        ("qkv_proj", "1 int4/32", "error 10.00 %", "KL 2.00e-02"),
        ("up_proj", "1 fp32, 1 int4/64", "error 20.00 %", "KL 3.00e-02"),
    ]
    several = [
        replace(weight, path=f"model.layers.{i}.mlp.down_proj") for i, weight in enumerate(stored_weights(manifest)[:3])
    ]
    mean = 100 * (0.005 + 0.1 + 0.2) / 3
    assert list(rows_by_kind(several)) == [
        ("down_proj", "1 int4/32, 1 int4/64, 1 int8/32", f"error {mean:.2f} %", "KL 5.10e-02")
    ]


def test_estimated_kl_is_a_sum_where_every_weight_has_one_and_the_task_generates(manifest: Manifest) -> None:
    assert estimated_kl(manifest, stored_weights(manifest)) == pytest.approx(0.051)
    classifier = replace(manifest, task="text-classification")
    assert estimated_kl(classifier, stored_weights(classifier)) is None
    first = TENSORS["model.embed_tokens.codes"]
    assert first.quantization is not None
    unknown = replace(first, quantization=replace(first.quantization, kl_estimate=None))
    partly = replace(manifest, tensors=TENSORS | {"model.embed_tokens.codes": unknown})
    assert estimated_kl(partly, stored_weights(partly)) is None


def test_inspect_shows_a_summary(run: Run, folder: Path) -> None:
    lines = run("inspect", folder).stdout.splitlines()
    bits = 8 * (sum(BYTES.values()) - BYTES["fp32 computed"]) / PARAMETERS
    start = next(i for i, line in enumerate(lines) if line.startswith("weights"))
    assert lines[start : start + 5] == [
        "weights     int4: 4 weights, blocks of 32 (3) and 64 (1); int8: 1, blocks of 32; fp32: 1; "
        f"{bits:.2f} bits per weight",
        "            embed_tokens  1 int8/32          error 0.50 %   KL 1.00e-03",
        "            qkv_proj      1 int4/32          error 10.00 %  KL 2.00e-02",
        "            up_proj       1 fp32, 1 int4/64  error 20.00 %  KL 3.00e-02",
        "KL          0.051 nats per token, estimated",
    ]
    assert lines[2] == "parameters  348,224, 454 kB"


def test_inspect_lists_every_weight(run: Run, folder: Path) -> None:
    assert run("inspect", folder, "--weights").stdout.splitlines() == [
        "model.embed_tokens\t327680\tint8\t32\tsymmetric\trtn\t4\t0.0050\t1.00e-03",
        f"{LAYER}self_attn.qkv_proj\t8192\tint4\t32\tasymmetric\tgptq\t0\t0.1000\t2.00e-02",
        f"{LAYER}mlp.up_proj\t6144\tint4\t64\tasymmetric\tgptq\t4\t0.2000\t3.00e-02",
        "model.layers.1.mlp.up_proj\t6144\tfp32\t-\t-\t-\t-\t-\t-",
    ]


def test_inspect_as_json_has_every_weight(run: Run, folder: Path) -> None:
    weights = json.loads(run("inspect", folder, "--json").stdout)["weights"]
    assert [weight["path"] for weight in weights] == [
        "model.embed_tokens",
        f"{LAYER}self_attn.qkv_proj",
        f"{LAYER}mlp.up_proj",
        "model.layers.1.mlp.up_proj",
    ]
    assert weights[1] == {
        "path": f"{LAYER}self_attn.qkv_proj",
        "shape": [128, 64],
        "precision": "int4",
        "quantization": {
            "bits": 4,
            "block_size": 32,
            "symmetric": False,
            "method": "gptq",
            "accuracy_level": 0,
            "error": 0.1,
            "damage": 0.02,
        },
    }
    assert weights[3]["quantization"] is None


def test_a_float_artifact_lists_no_weights(run: Run, make_artifact: MakeArtifact) -> None:
    folder = make_artifact("float")
    result = run("inspect", folder, "--weights")
    assert (result.exit_code, result.stdout) == (2, "")
    assert (
        result.stderr
        == f"Error: {folder} is not quantized, and --weights lists quantized weights; leave the option out\n"
    )
    assert "weights" not in json.loads(run("inspect", folder, "--json").stdout)
