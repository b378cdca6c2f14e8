"""Models that a graph cannot express are exported in another way or rejected with a reason, never exported wrongly."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from intaglio.artifact import read_manifest
from intaglio.errors import UnsupportedError, UsageError
from intaglio.exporter import export
from intaglio.models.checkpoint import Checkpoint
from intaglio.tests import tiny
from intaglio.tests.exporter import drive


def test_head_dim_that_no_kernel_takes(tmp_path: Path) -> None:
    values = tiny.config("qwen2", head_dim=10)
    folder = tiny.write(tmp_path / "checkpoint", values)
    with pytest.raises(
        UnsupportedError, match=r"head_dim is 10; .* multiples of 8 only: export with --target standard"
    ):
        export(folder, tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint"]
    export(folder, tmp_path / "out", target="standard")


@pytest.mark.parametrize("family", ["qwen2", "exaone4"])
def test_head_dim_that_attention_takes_but_cannot_rotate(tmp_path: Path, family: str) -> None:
    folder = tiny.write(tmp_path / "checkpoint", tiny.config(family, head_dim=24))
    export(folder, tmp_path / "out")
    operators = read_manifest(tmp_path / "out").operators
    assert operators["RotaryEmbedding"] == (8 if family == "qwen2" else 6)
    native = Checkpoint(folder).load()
    rows = [drive.ids(288, 30, seed) for seed in range(3)]
    graph = drive.CachedGraph(tmp_path / "out")
    difference = drive.ragged(graph, native, rows, [12, 5, 6], steps=18)
    assert difference.agree
    assert difference.largest <= 1e-4
    assert drive.chunked(drive.CachedGraph(tmp_path / "out"), native, rows[0], [9, 8, 1, 12]).largest <= 1e-4


GLOBAL = {"layer_types": ["full_attention"] * 4}  # with a sliding_window given: no layer rotates


@pytest.mark.parametrize("task", ["text-generation", "token-classification"])
@pytest.mark.parametrize(("family", "changes"), [("qwen2", {}), ("exaone4", {}), ("exaone4", GLOBAL)])
def test_left_padding_fails_in_the_fused_graph(tmp_path: Path, family: str, changes: dict[str, Any], task: str) -> None:
    folder = tiny.write(tmp_path / "checkpoint", tiny.config(family, task, **changes))
    export(folder, tmp_path / "out")
    session = drive.session(tmp_path / "out")
    mask = np.ones((2, 6), np.int64)
    feeds = {"input_ids": np.ones((2, 6), np.int64), "attention_mask": mask}
    feeds |= {v.name: np.zeros((2, 2, 0, 16), np.float32) for v in session.get_inputs() if "past" in v.name}
    mask[1, 4:] = 0
    drive.run(session, feeds)
    mask[1] = 1, 1, 1, 1, 1, 1
    mask[1, :2] = 0
    with pytest.raises(Exception, match="seqlens_k"):
        drive.run(session, feeds)


def test_sequence_classifier_without_a_padding_token_takes_one_row(tmp_path: Path) -> None:
    folder = tiny.write(tmp_path / "checkpoint", tiny.config("qwen2", "text-classification", pad_token_id=None))
    export(folder, tmp_path / "out")
    session = drive.session(tmp_path / "out")
    ids = drive.ids(288, 7)
    found = drive.run(session, {"input_ids": ids.numpy(), "attention_mask": np.ones((1, 7), np.int64)})[0]
    with torch.inference_mode():
        expected = Checkpoint(folder).load()(ids).logits
    np.testing.assert_allclose(found, expected.numpy(), rtol=0, atol=1e-4)
    with pytest.raises(Exception, match="invalid dimensions"):
        drive.run(session, {"input_ids": np.ones((2, 7), np.int64), "attention_mask": np.ones((2, 7), np.int64)})


def test_weight_beyond_fp16(tmp_path: Path) -> None:
    values = tiny.config("qwen2")
    tensors = tiny.weights(values)
    tensors["model.layers.2.mlp.up_proj.weight"][3, 4] = 70_000.0
    folder = tiny.write(tmp_path / "checkpoint", values, tensors=tensors, dtype=torch.bfloat16)
    message = r"model\.layers\.2\.mlp\.up_proj\.weight: a value of .* is beyond fp16's 65504; .*bf16 or fp32"
    with pytest.raises(UnsupportedError, match=message):
        export(folder, tmp_path / "out", precision="fp16")
    assert not (tmp_path / "out").exists()
    export(folder, tmp_path / "out", precision="bf16")


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("task", "translation", "task is 'translation'; choose one of auto, text-generation"),
        ("precision", "fp8", "precision is 'fp8'; choose one of fp32"),
        ("target", "tensorrt", "target is 'tensorrt'; choose one of ort, standard"),
    ],
)
def test_unknown_choices(tmp_path: Path, option: str, value: Any, message: str) -> None:
    folder = tiny.write(tmp_path / "checkpoint", tiny.config("qwen2"))
    with pytest.raises(UsageError, match=message):
        export(folder, tmp_path / "out", **{option: value})
