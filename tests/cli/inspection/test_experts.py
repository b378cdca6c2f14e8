"""``inspect`` says how many parameters of a mixture of experts compute a token, and how much is read for it."""

from collections.abc import Mapping
from math import prod
from pathlib import Path

import pytest
from intaglio.artifact import Target, read_manifest
from intaglio.cli.inspection.active import artifact_bytes, artifact_mixture, part_of
from intaglio.cli.inspection.artifact import describe_artifact
from intaglio.cli.inspection.checkpoint import describe_checkpoint
from intaglio.exporter import QuantizeOptions, export, quantize
from intaglio.tests import tiny


def test_active_parameters(tmp_path: Path) -> None:
    values = tiny.config("qwen2_moe")
    description = describe_checkpoint(tiny.write(tmp_path / "source", values, tokenizer=True))
    unread = sum(  # four of the six experts of each layer
        prod(shape) for name, shape in tiny.shapes(values).items() if any(f".experts.{i}." in name for i in range(4))
    )
    total = sum(prod(shape) for shape in tiny.shapes(values).values())
    assert description.parameters == total
    assert description.details["experts"] == {
        "layers with experts": 3,
        "experts of a layer": 6,
        "experts of a token": 2,
        "active parameters": total - unread,
    }
    lines = " ".join(text.replace("\u00a0", " ") for _, text in description.to_lines(()))
    assert f"active parameters {total - unread:,}" in lines


def test_other_models_have_no_such_line(tmp_path: Path) -> None:
    folder = tiny.write(tmp_path / "source", tiny.config("qwen2"), tokenizer=True)
    assert "experts" not in describe_checkpoint(folder).details


def expected_bytes(shapes: Mapping[str, tuple[int, ...]], width: float, head: str) -> float:
    """Return what a token reads: two of six experts of each layer, and of the embedding nothing but the LM head."""
    total = 0.0
    for name, shape in shapes.items():
        if "embed_tokens" in name and head != name:
            continue
        total += prod(shape) * width / (3 if ".experts." in name else 1)
    return total


@pytest.mark.parametrize("tied", [False, True], ids=["", "tied"])
@pytest.mark.parametrize("target", ["ort", "standard"])
def test_an_artifact_has_its_active_parameters_and_bytes(tmp_path: Path, target: Target, tied: bool) -> None:
    values = tiny.config("qwen2_moe", tie_word_embeddings=tied)
    source = tiny.write(tmp_path / "source", values, tokenizer=True)
    checkpoint = describe_checkpoint(source).details["experts"]
    export(source, tmp_path / "out", target=target)
    manifest = read_manifest(tmp_path / "out")
    found = describe_artifact(tmp_path / "out", manifest).details["experts"]
    read = found.pop("bytes read per token")
    assert found == checkpoint
    head = "model.embed_tokens.weight" if tied else "lm_head.weight"
    assert read == pytest.approx(expected_bytes(tiny.shapes(values), 4, head), abs=1000)  # constants besides


def test_bytes_of_a_quantized_artifact_by_part(tmp_path: Path) -> None:
    values = tiny.config("qwen2_moe", mlp_only_layers=[0])
    source = tiny.write(tmp_path / "source", values, tokenizer=True)
    options = QuantizeOptions(method="rtn", block_size=32)
    quantize(source, tmp_path / "out", precision="int4", options=options)
    manifest = read_manifest(tmp_path / "out")
    mixture = artifact_mixture(tmp_path / "out", manifest)
    assert mixture is not None
    assert (mixture.layers, mixture.count, mixture.chosen) == (3, 6, 2)
    found = artifact_bytes(manifest, mixture)
    each = 3 * 64 * 32  # elements of an expert
    per_element = 0.5 + 2 / 32  # int4 with a float16 for 32
    zero_points = 2 * 32 + 64  # a byte for each row of an expert: of two blocks, or of one
    assert found["experts"] == 3 * 2 * (each * per_element + zero_points)
    assert found["routers"] == 3 * (6 + 1) * 64 * 4
    assert found["LM head"] == 288 * (64 * per_element + 1)
    assert found["attention"] > 0
    assert "embedding" not in found
    description = describe_artifact(tmp_path / "out", manifest)
    lines = " ".join(text.replace("\u00a0", " ") for _, text in description.to_lines(()))
    assert f"bytes read per token {sum(found.values()):,}" in lines


def test_a_classifier_reads_one_row_of_the_embedding(tmp_path: Path) -> None:
    values = tiny.config("qwen2_moe", "text-classification")
    export(tiny.write(tmp_path / "source", values, tokenizer=True), tmp_path / "out")
    manifest = read_manifest(tmp_path / "out")
    mixture = artifact_mixture(tmp_path / "out", manifest)
    assert mixture is not None
    assert not {"LM head", "embedding"} & artifact_bytes(manifest, mixture).keys()


def test_without_its_config_an_artifact_has_no_such_line(tmp_path: Path) -> None:
    export(tiny.write(tmp_path / "source", tiny.config("qwen2_moe"), tokenizer=True), tmp_path / "out")
    (tmp_path / "out" / "config.json").unlink()
    assert "experts" not in describe_artifact(tmp_path / "out", read_manifest(tmp_path / "out")).details


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("model.layers.0.self_attn.qkv_proj.codes", "attention"),
        ("model.layers.0.mlp.experts.gate_up_proj.codes", "experts"),
        ("layers.0.mlp.experts.3.down_proj.weight", "experts"),
        ("model.layers.0.mlp.shared_expert.up_proj.scales", "shared expert"),
        ("model.layers.0.mlp.gate.weight", "routers"),
        ("model.layers.0.mlp.gate_proj.codes", "MLP"),
        ("lm_head.weight", "LM head"),
        ("embed_tokens.weight", "embedding"),
        ("model.norm.weight", "other"),
    ],
)
def test_parts_of_a_model(name: str, part: str) -> None:
    assert part_of(name) == part
