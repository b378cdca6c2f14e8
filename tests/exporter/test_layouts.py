"""Checkpoints with a trainer's prefix, float64 weights or an adapter beside them are exported as the plain ones."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from intaglio import QuantizeOptions
from intaglio.artifact import read_manifest, sha256_file
from intaglio.errors import UnsupportedError
from intaglio.exporter import export
from intaglio.parity import CheckOptions, check
from intaglio.tests import tiny
from intaglio.tests.files.artifact_files import data_of
from safetensors.torch import save_file

QUICK = CheckOptions(windows=2, window=96, steps=4)


def written(folder: Path, tensors: dict[str, torch.Tensor]) -> Path:
    tiny.write(folder, tiny.config("qwen2"), tokenizer=True)
    save_file(tensors, folder / "model.safetensors")
    return folder


@pytest.mark.parametrize("precision", ["fp32", pytest.param("int8", marks=pytest.mark.slow)])
def test_the_weights_are_those_of_the_plain_checkpoint(tmp_path: Path, precision: Any) -> None:
    plain = tiny.weights(tiny.config("qwen2"))
    options = QuantizeOptions(method="rtn") if precision == "int8" else None
    first = export(written(tmp_path / "plain", plain), tmp_path / "first", precision=precision, options=options)
    turned = {f"module.{name}": tensor.double() for name, tensor in plain.items()} | {"module.v_head.x": torch.ones(1)}
    folder = written(tmp_path / "turned", turned)
    second = export(folder, tmp_path / "second", precision=precision, options=options)
    written_keys = json.loads((tmp_path / "first" / "intaglio.json").read_text())
    assert not {"notes", "attention"} & {*written_keys, *written_keys["model"]}
    assert (first.notes, read_manifest(tmp_path / "first").model.attention) == ((), "causal")
    assert second.notes == (
        "tensor names are read without the prefix module.",
        "float64 weights are read as float32",
        "1 tensor is left out, which text-generation does not read: v_head.x",
    )
    assert sha256_file(data_of(tmp_path / "first")) == sha256_file(data_of(tmp_path / "second"))
    assert first.tensors == second.tensors
    report = check(tmp_path / "second", folder, options=QUICK, threads=1)
    assert report.findings == ()
    assert [tensor.fault for tensor in report.tensors if tensor.fault] == []


def test_a_value_beyond_float32(tmp_path: Path) -> None:
    tensors = {name: tensor.double() for name, tensor in tiny.weights(tiny.config("qwen2")).items()}
    tensors["model.layers.2.mlp.up_proj.weight"][3, 4] = 1e300
    folder = written(tmp_path / "checkpoint", tensors)
    message = r"model\.layers\.2\.mlp\.up_proj\.weight: a value of 1e\+300 is beyond float32's 3\.4e38; the"
    with pytest.raises(UnsupportedError, match=message):
        export(folder, tmp_path / "out")


def test_an_adapter_is_left_out_on_request(tmp_path: Path) -> None:
    folder = written(tmp_path / "checkpoint", tiny.weights(tiny.config("qwen2")))
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
    with pytest.raises(
        UnsupportedError, match=r"an adapter \(LoRA\) lies beside the full weights \(adapter_config.json"
    ):
        export(folder, tmp_path / "out")
    export(folder, tmp_path / "out", ignore_adapter=True)
    note = "an adapter (LoRA) beside the weights (adapter_config.json) is left out, as --ignore-adapter says"
    assert read_manifest(tmp_path / "out").notes == (note,)
    report = check(tmp_path / "out", folder, options=QUICK, threads=1)
    assert report.not_compared == ("the adapter beside the weights (adapter_config.json), which is left out",)
