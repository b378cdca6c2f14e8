"""transformers beside the native definitions: the same outputs, nothing on stderr, and refusals with a remedy."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from intaglio.artifact import Task
from intaglio.errors import DependencyError, UnsupportedError
from intaglio.models.checkpoint import Checkpoint
from intaglio.models.reading.options import ReadOptions
from intaglio.parity.reference.transformers import transformers_logits
from intaglio.tests import tiny
from intaglio.tests.models.variants import BY_NAME
from numpy.typing import NDArray

TOKENS = [np.random.default_rng(length).integers(3, 288, length) for length in (40, 7)]
"""Beyond the window and the original length of the scaled RoPE types, then below: the order that shows state."""

TASKS: tuple[Task, ...] = (
    "text-generation",
    "feature-extraction",
    "text-classification",
    "token-classification",
    "question-answering",
)


def written(folder: Path, name: str, task: str = "text-generation") -> Path:
    variant = BY_NAME[name]
    values = tiny.config(variant.family, task, spelling=variant.spelling, rope=variant.rope, **variant.changes)
    return tiny.write(folder, values)


@torch.inference_mode()
def native(folder: Path, tokens: NDArray[np.int64], options: ReadOptions | None = None) -> NDArray[np.float32]:
    checkpoint = Checkpoint(folder, options or ReadOptions())
    output: Any = checkpoint.load()(torch.from_numpy(tokens)[None])
    found: torch.Tensor
    if checkpoint.task == "question-answering":
        found = torch.cat((output.start_logits, output.end_logits))
    elif checkpoint.task == "feature-extraction":
        found = output.last_hidden_state[0]
    else:
        found = output.logits if checkpoint.task == "text-classification" else output.logits[0]
    array: NDArray[np.float32] = found.numpy()
    return array


def assert_equal(folder: Path) -> None:
    found = list(transformers_logits(folder, Checkpoint(folder).task, TOKENS))
    assert len(found) == len(TOKENS)
    for theirs, tokens in zip(found, TOKENS, strict=True):
        ours = native(folder, tokens)
        assert theirs.dtype == np.float32
        assert theirs.shape == ours.shape
        assert np.abs(theirs - ours).max() <= 2e-5 * np.abs(ours).max()


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("name", ["qwen2-max-window-layers", "exaone4-plain"])
def test_equals_the_native_definition(name: str, task: str, tmp_path: Path) -> None:
    assert_equal(written(tmp_path, name, task))


@pytest.mark.parametrize("name", ["qwen2-rope-dynamic", "qwen2-rope-longrope", "exaone4-rope-llama3", "qwen2-tied"])
def test_rows_do_not_influence_each_other(name: str, tmp_path: Path) -> None:
    assert_equal(written(tmp_path, name))


@pytest.mark.parametrize("task", TASKS[1:3])
def test_bidirectional_attention(task: Task, tmp_path: Path) -> None:
    folder = written(tmp_path, "exaone4-global", task)
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(values | {"auto_map": {"AutoModel": "modeling_exaone4.Encoder"}}))
    found = list(transformers_logits(folder, task, TOKENS, "bidirectional"))
    for theirs, tokens in zip(found, TOKENS, strict=True):
        ours = native(folder, tokens, ReadOptions(attention="bidirectional"))
        assert np.abs(theirs - ours).max() <= 2e-5 * np.abs(ours).max()


def test_a_transformers_without_bidirectional_attention(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transformers.masking_utils, "create_causal_mask", lambda: None)
    with pytest.raises(UnsupportedError, match=r"transformers \S+ has no bidirectional attention for this family; up"):
        list(transformers_logits(written(tmp_path, "qwen2-plain"), "feature-extraction", TOKENS, "bidirectional"))


def test_says_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    import transformers

    logging = transformers.utils.logging
    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    list(transformers_logits(written(tmp_path, "exaone4-plain", "question-answering"), "question-answering", TOKENS))
    assert capfd.readouterr() == ("", "")
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before


def test_without_transformers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(DependencyError, match=r"transformers cannot be imported.*pip install transformers"):
        list(transformers_logits(written(tmp_path, "qwen2-plain"), "text-generation", TOKENS))


def test_a_pattern_that_transformers_does_not_read(tmp_path: Path) -> None:
    with pytest.raises(
        UnsupportedError, match=r"sliding_window_pattern is 'LLLG'.*write the layers out as layer_types"
    ):
        list(transformers_logits(written(tmp_path, "exaone4-pattern-LLLG"), "text-generation", TOKENS))


def test_a_null_window_without_layer_types(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match=r"sliding_window is null.*write the layers out as layer_types"):
        list(transformers_logits(written(tmp_path, "exaone4-global-null"), "text-generation", TOKENS))


def test_what_transformers_cannot_load(tmp_path: Path) -> None:
    folder = written(tmp_path, "exaone4-mha-absent")  # it takes the number of key/value heads for 32
    with pytest.raises(
        UnsupportedError, match=r"transformers \S+ cannot read this checkpoint \(.+\); leave --reference"
    ):
        list(transformers_logits(folder, "text-generation", TOKENS))


def test_a_head_that_the_checkpoint_has_not(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match=r"finds no score.weight for text-classification"):
        list(transformers_logits(written(tmp_path, "qwen2-plain"), "text-classification", TOKENS))
