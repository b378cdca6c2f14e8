"""What is carried over and what is refused, the options that go with it, and what an artifact says of it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from intaglio.artifact import read_manifest
from intaglio.errors import CheckpointError, UnsupportedError, UsageError
from intaglio.exporter import QuantizeOptions, export, quantize
from intaglio.exporter.quantize.formats.blocks import unpack
from intaglio.exporter.quantize.stored.plan import artifact_bytes, plan
from intaglio.models.checkpoint import Checkpoint
from intaglio.models.quantized.weights import BlockParameters
from intaglio.runtime import load
from intaglio.tests.exporter.stored.grids import EVERY, LAYERS, Kind, Weight, by_end, install
from intaglio.tests.exporter.stored.test_carried import FLOAT, write
from intaglio.tests.files.artifact_files import graph_of
from onnx import numpy_helper

LAYERS_ONLY = by_end(dict.fromkeys(LAYERS, Kind(zeros="any")))


def test_a_weight_without_a_grid_is_refused_with_the_costs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def change(name: str, weight: Weight) -> Weight:
        return replace(weight, has_grid="down_proj" not in name, format="FP8")

    install(monkeypatch, by_end(dict.fromkeys(EVERY, Kind())), change)
    folder = write(tmp_path / "checkpoint", "exaone4")
    with pytest.raises(
        UnsupportedError,
        match=r"model\.layers\.0\.mlp\.down_proj\.weight is stored as FP8 and cannot be exported as it is: its numbers "
        r"are not whole multiples of a scale; nor can 1 other weight; export its numbers in another precision: "
        r"--precision int8 \(0\.1 MB, advised\), fp32 \(0\.4 MB, without a loss\) or int4 \(0\.1 MB, with the",
    ):
        export(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    found = plan(Checkpoint(folder), "text-generation")
    assert set(found.refused) == {f"model.layers.{index}.mlp.down_proj.weight" for index in (0, 1)}
    manifest = export(folder, tmp_path / "out", precision="fp32")
    assert manifest.precision == "fp32"
    sizes = artifact_bytes(Checkpoint(folder), "text-generation", found)
    assert abs(manifest.files[manifest.data].size - sizes["fp32"]) < 4096 * (len(manifest.tensors) + 1)


def test_codes_of_5_bits_stay_so_where_intaglios_kernels_run_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, by_end(dict.fromkeys(EVERY, Kind(5, zeros="any"))))
    folder = write(tmp_path / "checkpoint", "qwen2")

    def bits(target: Any = "ort", device: Any = None, **options: Any) -> set[int]:
        found = plan(Checkpoint(folder), "text-generation", target, QuantizeOptions(**options), device)
        return {scheme.format.bits for scheme in found.schemes.values()}

    assert bits() == bits(bits=(4, 5)) == {5}
    assert bits(bits=(4, 8)) == bits(accuracy_level=0) == bits(activations="fp16") == {8}
    assert bits(target="standard") == bits(device="cuda") == {8}
    manifests = [
        export(folder, tmp_path / name, options=options)
        for name, options in (("five", None), ("eight", QuantizeOptions(bits=(4, 8))))
    ]
    widths = [{one.quantization.bits for one in m.tensors.values() if one.quantization} for m in manifests]
    assert widths == [{5}, {8}]
    models = [
        load(tmp_path / name, kernels=kernels) for name in ("five", "eight") for kernels in ("auto", "onnxruntime")
    ]
    tokens = {model.generate([5, 6, 7], max_new_tokens=6).token_ids for model in models}  # type: ignore[union-attr]
    assert len(tokens) == 1


def test_groups_that_do_not_fit_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, by_end({"o_proj": Kind(4, 8)}))
    folder = write(tmp_path / "checkpoint", "qwen2")
    with pytest.raises(UnsupportedError, match=r"o_proj\.weight is stored as .*: it has groups of 8, and ONNX Runtime"):
        export(folder, tmp_path / "out")


def test_a_damaged_scale_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def change(name: str, weight: Weight) -> Weight:
        scales = weight.whole.blocks.scales.clone()
        scales[0, 0] = float("nan")
        blocks = BlockParameters(scales, weight.whole.blocks.zero_points)
        return replace(weight, whole=replace(weight.whole, blocks=blocks))

    install(monkeypatch, by_end({"v_proj": Kind()}), change)
    with pytest.raises(CheckpointError, match=r"v_proj\.weight .* has a scale or an offset that is NaN or infinite"):
        export(write(tmp_path / "checkpoint", "qwen2"), tmp_path / "out")


def test_a_code_beyond_its_bits_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def change(name: str, weight: Weight) -> Weight:
        codes = weight.whole.all_codes.clone()
        codes[-1, -1] = 16
        return replace(weight, whole=replace(weight.whole, all_codes=codes))

    install(monkeypatch, by_end({"v_proj": Kind(zeros="any")}), change)
    with pytest.raises(CheckpointError, match=r"v_proj\.weight .* has a code beyond 4 bits; fetch it again"):
        export(write(tmp_path / "checkpoint", "qwen2"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "rtn"}, "method is given, and the weights of .* are quantized already and exported as they are"),
        ({"block_size": 32}, "block_size is given"),
        ({"keep": {"lm_head": "int8"}}, "keep is given"),
        ({"target_size": 1}, "target_size is given"),
    ],
)
def test_options_of_another_quantization(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], message: str
) -> None:
    install(monkeypatch, LAYERS_ONLY)
    with pytest.raises(UsageError, match=message):
        export(write(tmp_path / "checkpoint", "qwen2"), tmp_path / "out", options=QuantizeOptions(**options))


def test_float_activations_are_of_target_ort(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, LAYERS_ONLY)
    folder = write(tmp_path / "checkpoint", "qwen2")
    with pytest.raises(UsageError, match="accuracy level is an attribute of MatMulNBits, an operator of target ort"):
        export(folder, tmp_path / "out", target="standard", options=FLOAT)


def test_a_float_checkpoint_has_no_options_of_a_quantization(tmp_path: Path) -> None:
    folder = write(tmp_path / "checkpoint", "qwen2", quantized=False)
    with pytest.raises(UsageError, match="precision is 'fp32', and quantization is for"):
        export(folder, tmp_path / "out", options=FLOAT)
    assert export(folder, tmp_path / "out").precision == "fp32"


def test_an_artifact_of_stored_codes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, LAYERS_ONLY)
    folder = write(tmp_path / "checkpoint", "qwen2", tokenizer=True)
    manifest = export(folder, tmp_path / "out")
    assert manifest.precision == "int4"
    assert manifest.graph == "onnx/model_q4.onnx"
    (note,) = [note for note in manifest.notes if "keep their codes" in note]
    assert "7 of a format of tests as int4/32" in note
    assert "quantization_config" not in json.loads((tmp_path / "out" / "config.json").read_text())
    entry = manifest.tensors["model.layers.0.self_attn.o_proj.codes"]
    assert entry.quantization is not None
    assert (entry.quantization.method, entry.quantization.error, entry.quantization.symmetric) == ("stored", 0, False)
    assert entry.quantization.accuracy_level == 4
    # Code for code: the bytes in the file are the checkpoint's codes.
    checkpoint = Checkpoint(folder)
    grid = checkpoint.quantized["model.layers.0.self_attn.o_proj.weight"].grid
    assert grid is not None
    stored = stored_bytes(tmp_path / "out", "model.layers.0.self_attn.o_proj.codes")
    assert torch.equal(unpack(stored.reshape(64, -1), 4), grid.codes(range(64)))
    with pytest.raises(UsageError, match="is quantized already"):
        quantize(tmp_path / "out", tmp_path / "again")


def stored_bytes(folder: Path, name: str) -> torch.Tensor:
    """Return the bytes of an initializer."""

    model = onnx.load(graph_of(folder))
    return torch.from_numpy(numpy_helper.to_array(next(t for t in model.graph.initializer if t.name == name)).copy())


@pytest.mark.parametrize("device", ["cuda", "qnn"])
def test_devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: Any) -> None:
    install(monkeypatch, by_end({"_proj": Kind(block_size=256 if device == "cuda" else 32, zeros="any")}))
    folder = write(tmp_path / "checkpoint", "qwen2", hidden_size=256, intermediate_size=256, num_attention_heads=4)
    with pytest.raises(UnsupportedError, match=r"cannot be exported as it is: .* does not run it: .*"):
        export(folder, tmp_path / "out", device=device)


def test_a_device_that_takes_the_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, by_end({"_proj": Kind(block_size=64, scales="single")}))
    folder = write(tmp_path / "checkpoint", "qwen2")
    manifest = export(folder, tmp_path / "out", device="cuda")
    assert manifest.graph == "onnx/model_q4f16.onnx"
    assert read_manifest(tmp_path / "out").tensors["model.layers.0.mlp.down_proj.scales"].precision == "fp16"
    errors = [entry.quantization.error for entry in manifest.tensors.values() if entry.quantization]
    assert 0 < max(errors) < 5e-4  # scales in float16, as the graph computes
