"""Models that a graph cannot express are exported in another way or rejected with a reason, never exported wrongly."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch
import transformers
from intaglio.artifact import Target, Task, read_manifest
from intaglio.contract import MASK_CHECK, OUTPUTS, input_names
from intaglio.errors import ArtifactError, UnsupportedError, UsageError
from intaglio.exporter import export
from intaglio.models.checkpoint import Checkpoint
from intaglio.runtime.engine.opening import open_session
from intaglio.runtime.engine.session import Kernels
from intaglio.tests import tiny
from intaglio.tests.exporter import drive
from numpy.typing import NDArray


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
DYNAMIC = {"rope": {"rope_type": "dynamic", "factor": 2.0}}  # rotated outside of attention, from the mask's lengths

PROMPT_MASKS = {
    "left": [[1, 1, 1, 1], [0, 0, 1, 1]],
    "left alone": [[0, 1, 1, 1]],
    "hole": [[1, 1, 1, 1], [1, 0, 1, 1]],
    "hole before padding": [[1, 0, 1, 0], [1, 1, 1, 1]],
    "no token": [[1, 1, 1, 1], [0, 0, 0, 0]],
    "no token alone": [[0, 0, 0, 0]],
    "two wrong rows": [[0, 1, 1, 1], [1, 1, 0, 1], [1, 1, 1, 1]],
    "only the last": [[0, 0, 0, 1]],
    "other numbers": [[0, 2, 2, 2], [1, 1, 1, 1]],
    "a large number": [[1, 2, 0, 7]],
}
STEP_MASKS = {
    "left": [[1, 1, 1, 1, 1], [0, 1, 1, 1, 1]],
    "left, and the other a gap": [[1, 1, 0, 0, 1], [0, 0, 0, 0, 1]],
    "no token": [[0, 0, 0, 0, 0]],
}
SHORT_MASK = [[1, 1, 1]]


@pytest.mark.parametrize(
    ("family", "changes", "task"),
    [
        ("qwen2", {}, "token-classification"),
        ("qwen2", DYNAMIC, "text-generation"),
        ("exaone4", {}, "text-generation"),
        ("exaone4", GLOBAL, "token-classification"),
    ],
)
def test_masks_that_are_not_padded_on_the_right_fail_in_the_fused_graph(
    tmp_path: Path, family: str, changes: dict[str, Any], task: Task
) -> None:
    """The check is a node of the graph: it needs no kernel of ours, and no optimization of ONNX Runtime removes it."""
    folder = tiny.write(tmp_path / "checkpoint", tiny.config(family, task, **changes))
    manifest = export(folder, tmp_path / "out")

    def feeds(mask: list[list[int]], new: int, past: int = 0) -> dict[str, NDArray[Any]]:
        given = {"input_ids": np.full((len(mask), new), 5), "attention_mask": np.array(mask)}
        names = input_names(task, manifest.model.num_hidden_layers)[2:]
        return given | {name: np.zeros((len(mask), 2, past, 16), np.float32) for name in names}

    wrong = {name: feeds(mask, 4) for name, mask in PROMPT_MASKS.items()}
    if task == "text-generation":
        wrong |= {f"step {name}": feeds(mask, 1, 4) for name, mask in STEP_MASKS.items()}
    for level in (ort.GraphOptimizationLevel.ORT_DISABLE_ALL, ort.GraphOptimizationLevel.ORT_ENABLE_ALL):
        session = drive.session(tmp_path / "out", level)
        drive.run(session, feeds([[1, 1, 1, 1], [1, 0, 0, 0], [1, 1, 1, 0]], 4))
        for name, given in wrong.items():
            with pytest.raises(Exception, match=f"Name:'{MASK_CHECK}'"):
                pytest.fail(f"{name}: {drive.run(session, given)[0].shape}")
        with pytest.raises(Exception, match="GroupQueryAttention"):
            drive.run(session, feeds(SHORT_MASK, 4))
    kernels: tuple[Kernels, ...] = ("auto", "onnxruntime")
    for choice in kernels:
        opened = open_session(tmp_path / "out", manifest, kernels=choice, threads=1)
        for name, given in wrong.items():
            message = "a row of attention_mask is not ones and then zeros, .*pad on the right, or export .*standard"
            with pytest.raises(UnsupportedError, match=message):
                pytest.fail(f"{name}: {opened.run(given, OUTPUTS[task])}")
        with pytest.raises(ArtifactError, match="GroupQueryAttention"):
            opened.run(feeds(SHORT_MASK, 4), OUTPUTS[task])


@pytest.mark.parametrize(("family", "target"), [("qwen2", "ort"), ("exaone4", "ort"), ("qwen2", "standard")])
def test_masks_that_a_graph_takes_give_the_logits_of_transformers(tmp_path: Path, family: str, target: Target) -> None:
    folder = tiny.write(tmp_path / "checkpoint", tiny.config(family, "token-classification"))
    manifest = export(folder, tmp_path / "out", target=target)
    model = transformers.AutoModelForTokenClassification.from_pretrained(folder, attn_implementation="eager").eval()
    masks = [[1, 1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0, 0]]
    if target == "standard":
        masks += [[0, 0, 0, 1, 1, 1, 1, 1], [1, 1, 0, 1, 1, 0, 0, 0]]
    mask = torch.tensor(masks)
    ids = drive.ids(288, mask.numel()).reshape(mask.shape).where(mask != 0, torch.tensor(0))
    with torch.inference_mode():
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        expected = model(ids, attention_mask=mask, position_ids=positions).logits
    feeds = {"input_ids": ids.numpy(), "attention_mask": mask.numpy()}
    kernels: tuple[Kernels, ...] = ("auto", "onnxruntime")
    for choice in kernels:
        found = open_session(tmp_path / "out", manifest, kernels=choice, threads=1).run(feeds, ("logits",))[0]
        difference = drive.Difference()
        difference.add(torch.from_numpy(found)[mask != 0], expected[mask != 0])
        assert difference.agree, choice
        assert difference.largest <= 1e-4, choice


@pytest.mark.parametrize(("family", "target"), [("qwen2", "ort"), ("exaone4", "ort"), ("qwen2", "standard")])
def test_a_step_after_a_padded_prompt_may_leave_the_gap_in_its_mask(
    tmp_path: Path, family: str, target: Target
) -> None:
    """onnxruntime-genai pads prompts on the right and adds a one to every row of the mask for each new token."""
    folder = tiny.write(tmp_path / "checkpoint", tiny.config(family))
    manifest = export(folder, tmp_path / "out", target=target)
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
    ids = drive.ids(288, 20).reshape(2, 10)
    lengths, longest = (8, 5), 8
    rows = [torch.cat([row[:length], row[longest:]])[None] for row, length in zip(ids, lengths, strict=True)]
    mask = np.ones((2, 10), np.int64)
    mask[1, 5:8] = 0
    session = drive.session(tmp_path / "out")
    names = input_names("text-generation", manifest.model.num_hidden_layers)[2:]
    cache = dict.fromkeys(names, np.zeros((2, 2, 0, 16), np.float32))
    for start, end in ((0, 8), (8, 9), (9, 10)):
        given = {"input_ids": ids[:, start:end].numpy(), "attention_mask": mask[:, :end]}
        logits, *present = drive.run(session, given | {"logits_to_keep": np.array([0])} | cache)
        cache = dict(zip(names, present, strict=True))
        for index, row in enumerate(rows):
            seen = mask[index, :end].sum()
            with torch.inference_mode():
                expected = model(row[:, :seen]).logits[0, -1]
            difference = drive.Difference()
            difference.add(torch.from_numpy(logits[index, min(lengths[index], end - start) - 1]), expected)
            assert difference.largest <= 1e-4


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
        ("precision", "fp8", "precision is 'fp8'; choose one of auto, fp32"),
        ("target", "tensorrt", "target is 'tensorrt'; choose one of ort, standard"),
    ],
)
def test_unknown_choices(tmp_path: Path, option: str, value: Any, message: str) -> None:
    folder = tiny.write(tmp_path / "checkpoint", tiny.config("qwen2"))
    with pytest.raises(UsageError, match=message):
        export(folder, tmp_path / "out", **{option: value})
