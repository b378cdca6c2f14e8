"""Whole folders: which reader takes them, settings beside config.json, names of older weight files, damage."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from intaglio.errors import CheckpointError, UnsupportedError
from intaglio.models.checkpoint import Checkpoint
from intaglio.tests.inputs.formats import awq, gptq
from safetensors.torch import load_file, save_file
from torch import Tensor

SINGLE, SETTINGS = "model.safetensors", "quantization_config"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return gptq.CASES[1].make(tmp_path, "qwen2")


def config(folder: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return values


def rewrite(folder: Path, **settings: Any) -> None:
    values = config(folder)
    values[SETTINGS] |= settings
    (folder / "config.json").write_text(json.dumps(values), encoding="utf-8")


def move_settings(folder: Path, name: str, **changes: Any) -> None:
    values = config(folder)
    (folder / name).write_text(json.dumps(values.pop(SETTINGS) | changes), encoding="utf-8")
    (folder / "config.json").write_text(json.dumps(values), encoding="utf-8")


def check(folder: Path, expected: dict[str, Tensor]) -> None:
    checkpoint = Checkpoint(folder)
    assert set(checkpoint.quantized) == set(expected)
    assert all(torch.equal(checkpoint.tensor(name), expected[name]) for name in expected)


def test_settings_of_autogptq_beside_config(folder: Path) -> None:
    expected = dict(gptq.CASES[1].weights(folder))
    move_settings(folder, "quantize_config.json", quant_method=None, model_file_base_name="gptq_model-4bit-32g")
    (folder / SINGLE).rename(folder / "gptq_model-4bit-32g.safetensors")
    check(folder, expected)


def test_settings_of_autoawq_beside_config(tmp_path: Path) -> None:
    folder = awq.CASES[1].make(tmp_path, "qwen2")
    expected = dict(awq.CASES[1].weights(folder))
    move_settings(folder, "quant_config.json", bits=None, group_size=None, w_bit=4, q_group_size=64, version="GEMM")
    (folder / SINGLE).rename(folder / "awq_model_w4_g64.safetensors")
    check(folder, expected)


def test_the_index_of_autogptq(folder: Path) -> None:
    expected = dict(gptq.CASES[1].weights(folder))
    stored = load_file(folder / SINGLE)
    (folder / SINGLE).unlink()
    stem = "gptq_model-4bit-32g"
    names = [f"{stem}-0000{index}-of-00002.safetensors" for index in (1, 2)]
    placed = {tensor: names[index % 2] for index, tensor in enumerate(stored)}
    for name in names:
        save_file({tensor: stored[tensor] for tensor, file in placed.items() if file == name}, folder / name)
    index = folder / f"{stem}.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": placed}), encoding="utf-8")
    check(folder, expected)
    (folder / names[1]).unlink()
    with pytest.raises(CheckpointError, match=re.escape(f"{names[1]} is missing, {index.name} names it; fetch")):
        Checkpoint(folder)


def test_settings_that_are_nowhere(folder: Path) -> None:
    move_settings(folder, "elsewhere.json")
    message = (
        "down_proj.qweight is a quantized weight, and neither config.json has a quantization_config nor "
        "is there a quantize_config.json or quant_config.json; fetch the checkpoint again"
    )
    with pytest.raises(CheckpointError, match=re.escape(message)):
        Checkpoint(folder)


def test_the_method_by_the_newer_key(folder: Path) -> None:
    rewrite(folder, quant_method=None, method="gptq")
    assert Checkpoint(folder).quantized


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (
            "aqlm",
            "quant_method is 'aqlm' (AQLM, sums of codebook entries), a format that is not read (those that are: auto",
        ),
        ("new", "quant_method is 'new', a format that is not read (those that are: auto-round, awq, "),
        ("new", "export the checkpoint that it was made from, with --precision int8 or int4"),
    ],
)
def test_a_format_that_is_not_read(method: str, message: str, folder: Path) -> None:
    rewrite(folder, quant_method=method)
    with pytest.raises(UnsupportedError, match=re.escape(message)):
        Checkpoint(folder)


@pytest.mark.parametrize(
    ("value", "message"), [(3, "quantization_config is 3, expected an object"), ({}, "has no quant")]
)
def test_settings_of_another_kind(folder: Path, value: object, message: str) -> None:
    values = config(folder) | {SETTINGS: value}
    (folder / "config.json").write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(CheckpointError, match=message):
        Checkpoint(folder)


def test_wrong_settings_name_the_file(folder: Path) -> None:
    rewrite(folder, bits="four")
    with pytest.raises(
        CheckpointError, match=r"config.json: quantization_config: bits is 'four', expected .*; fetch it"
    ):
        Checkpoint(folder)


def test_weights_of_another_model(folder: Path) -> None:
    values = config(folder) | {"intermediate_size": 384}
    (folder / "config.json").write_text(json.dumps(values), encoding="utf-8")
    message = r"gate_proj.weight has shape \(320, 128\), expected \(384, 128\) from config.json"
    with pytest.raises(CheckpointError, match=message):
        Checkpoint(folder).load()
