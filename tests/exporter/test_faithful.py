"""Artifacts compute what the native definitions compute: every family, head, target and configuration.

Windows are 6 tokens wide and scaled RoPE types have an original length of 16 (see ``tests/models/variants.py``): the
sequences here are shorter than, equal to and longer than both.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from intaglio.artifact import Target
from intaglio.exporter import export
from intaglio.models.checkpoint import Checkpoint
from intaglio.tests import tiny
from intaglio.tests.exporter import drive
from intaglio.tests.models.variants import VARIANTS, Variant

TOLERANCE = 1e-4
TARGETS: tuple[Target, ...] = ("ort", "standard")
QUICK: dict[Target, set[str]] = {
    "ort": {
        *("qwen2-plain", "qwen2-mqa", "qwen2-tied", "qwen2-max-window-layers", "qwen2-rope-dynamic"),
        *("qwen2-rope-longrope", "qwen2-rope-yarn", "exaone4-plain", "exaone4-mha"),
        *("exaone4-pattern-LLLG", "exaone4-rope-llama3", "exaone4-global", "qwen2_moe-plain"),
    },
    "standard": {
        "qwen2-max-window-layers",
        "qwen2-rope-longrope",
        "exaone4-plain",
        "exaone4-rope-llama3",
        "qwen2_moe-one-slides",
    },
}
CASES = [
    pytest.param(v, target, id=f"{v}-{target}", marks=() if str(v) in QUICK[target] else pytest.mark.slow)
    for v in VARIANTS
    for target in TARGETS
]
assert all(QUICK[target] <= {str(v) for v in VARIANTS} for target in TARGETS)


@pytest.mark.parametrize(("variant", "target"), CASES)
def test_generation(tmp_path: Path, variant: Variant, target: Target) -> None:
    values = tiny.config(variant.family, spelling=variant.spelling, rope=variant.rope, **variant.changes)
    folder = tiny.write(tmp_path / "checkpoint", values)
    if target == "ort" and variant.name == "head-dim-10":
        pytest.skip("refused: test_refusals.py")
    export(folder, tmp_path / "out", target=target)
    native = Checkpoint(folder).load()
    tokens = [drive.ids(values["vocab_size"], 56, seed) for seed in range(3)]
    context = Checkpoint(folder).config.context_length
    steps = min(40, context - 12)

    def graph() -> drive.CachedGraph:
        return drive.CachedGraph(tmp_path / "out")

    differences = {
        "one-shot": drive.chunked(graph(), native, tokens[0][:, :30], [30]),
        "decode": drive.chunked(graph(), native, tokens[0][:, : 5 + steps], [5] + [1] * steps),
        "chunked": drive.chunked(graph(), native, tokens[1][:, :24], [7, 6, 1, 10]),
        "ragged": drive.ragged(graph(), native, tokens, [12, 5, 6], steps=steps),
    }
    if target == "standard":
        differences["left"] = drive.ragged(graph(), native, tokens, [12, 5, 6], steps=20, left=True)
    tolerance = TOLERANCE
    if max(d.largest for d in differences.values()) > tolerance:
        # Very peaked attention over random weights multiplies roundings: then the measure is how far the definition
        # itself is from its own result in float64.
        tolerance = 4 * drive.rounding(Checkpoint(folder), tokens[0], [12] + [1] * steps)
        assert tolerance <= 10 * TOLERANCE
    assert {name: d.largest for name, d in differences.items() if d.largest > tolerance} == {}
    assert [name for name, d in differences.items() if not d.agree] == []


HEADS = ("feature-extraction", "text-classification", "token-classification", "question-answering")
HEAD_CASES = [  # quick: every pair of a family, a task and a target
    pytest.param(family, task, target, marks=() if (i + j + k) % 2 == 0 else pytest.mark.slow)
    for i, family in enumerate(("qwen2", "exaone4"))
    for j, task in enumerate(HEADS)
    for k, target in enumerate(TARGETS)
]


@pytest.mark.parametrize(("family", "task", "target"), HEAD_CASES)
def test_heads(tmp_path: Path, family: str, task: str, target: Target) -> None:
    changes: dict[str, Any] = {"use_sliding_window": True} if family == "qwen2" else {}
    values = tiny.config(family, task, **changes)
    folder = tiny.write(tmp_path / "checkpoint", values)
    export(folder, tmp_path / "out", target=target)
    native, session = Checkpoint(folder).load(), drive.session(tmp_path / "out")
    assert [value.name for value in session.get_inputs()] == ["input_ids", "attention_mask"]
    lengths = [17, 5, 6, 1]
    for left in (False, True) if target == "standard" else (False,):
        ids = torch.full((len(lengths), max(lengths)), values["pad_token_id"])
        mask = torch.zeros_like(ids)
        for row, count in enumerate(lengths):
            span = slice(-count, None) if left else slice(0, count)
            ids[row, span], mask[row, span] = drive.ids(values["vocab_size"], count, row)[0], 1
        outputs = drive.run(session, {"input_ids": ids.numpy(), "attention_mask": mask.numpy()})
        for row, count in enumerate(lengths):
            span = slice(max(lengths) - count, None) if left else slice(0, count)
            with torch.inference_mode():
                expected = native(ids[row : row + 1, span])
            for found, name in zip(outputs, [value.name for value in session.get_outputs()], strict=True):
                one = found[row : row + 1] if task == "text-classification" else found[row : row + 1, span]
                np.testing.assert_allclose(one, getattr(expected, name).numpy(), rtol=0, atol=TOLERANCE)
