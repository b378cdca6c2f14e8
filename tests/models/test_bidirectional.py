"""Encoders, whose tokens attend to later ones too, equal transformers with ``is_causal`` false, padding included."""

from pathlib import Path
from typing import Any

import pytest
import torch
from intaglio.errors import CheckpointError, UnsupportedError
from intaglio.models.checkpoint import Checkpoint
from intaglio.models.reading.options import ReadOptions
from intaglio.tests import tiny

from .drive import TOLERANCE, Pair, difference, open_pair, padded, positions_of, token_ids
from .variants import BY_NAME

TASKS = ("feature-extraction", "text-classification", "token-classification", "question-answering")
OUTPUTS = ("last_hidden_state", "logits", "start_logits", "end_logits")
AUTO_MAP = {"AutoModel": "modeling_qwen.Qwen2Model", "AutoConfig": "configuration_qwen.Qwen2Config"}
BIDIRECTIONAL = ReadOptions(attention="bidirectional")


def outputs(output: Any) -> list[torch.Tensor]:
    return [getattr(output, name) for name in OUTPUTS if hasattr(output, name)]


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("name", ["qwen2-plain", "qwen2-rope-yarn", "exaone4-global"])
def test_equals_transformers(tmp_path: Path, name: str, task: str) -> None:
    both: Pair = open_pair(tmp_path, BY_NAME[name], task, is_causal=False)
    causal = Checkpoint(tiny.write(tmp_path / "causal", tiny.config(BY_NAME[name].family, task, **GLOBAL[name]))).load()
    for side in ("left", "right"):
        ids, mask = padded((19, 4, 11), side, seed=1)
        with torch.no_grad():
            ours, theirs = both.ours(ids, mask), both.theirs(ids, attention_mask=mask, position_ids=positions_of(mask))
            other = causal(ids, mask)
        for our, their, wrong in zip(outputs(ours), outputs(theirs), outputs(other), strict=True):
            kept = torch.ones(3, dtype=torch.bool) if task == "text-classification" else mask != 0
            assert difference(our[kept], their[kept]) <= TOLERANCE
            assert difference(our[kept], wrong[kept]) > 100 * TOLERANCE


GLOBAL: dict[str, dict[str, Any]] = {
    name: dict(BY_NAME[name].changes) for name in ("qwen2-plain", "qwen2-rope-yarn", "exaone4-global")
}


def folder_of(path: Path, task: str = "feature-extraction", **changes: Any) -> Path:
    return tiny.write(path, tiny.config("qwen2", task, **changes))


def test_the_option_and_the_config_mean_the_same(tmp_path: Path) -> None:
    by_config = Checkpoint(folder_of(tmp_path / "config", is_causal=False))
    by_option = Checkpoint(folder_of(tmp_path / "option", auto_map=AUTO_MAP), BIDIRECTIONAL)
    ids = token_ids(2, 15)
    with torch.no_grad():
        hidden = [one.load()(ids).last_hidden_state for one in (by_config, by_option)]
    assert torch.equal(*hidden)
    assert by_option.notes == (
        "the checkpoint's own code (AutoModel: modeling_qwen.Qwen2Model, AutoConfig: configuration_qwen.Qwen2Config) "
        "is not run: attention is bidirectional, as --attention says",
    )
    assert by_config.notes == ()


def test_custom_code_is_asked_about(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, auto_map=AUTO_MAP)
    with pytest.raises(UnsupportedError) as caught:
        Checkpoint(folder)
    assert str(caught.value) == (
        f"{folder}/config.json: auto_map names code of the checkpoint's own (AutoModel: modeling_qwen.Qwen2Model, "
        "AutoConfig: configuration_qwen.Qwen2Config), which may compute something else than transformers' class and is "
        "not run; say what it does: --attention bidirectional if tokens attend to later ones, as in most embedding "
        "models, or --ignore-auto-map if it changes nothing"
    )
    ignored = Checkpoint(folder, ReadOptions(ignore_auto_map=True))
    assert ignored.config.causal
    assert ignored.notes[0].endswith("is not run: it changes nothing, as --ignore-auto-map says")
    described = Checkpoint(folder, ReadOptions(describe=True))
    assert described.notes[0].startswith("auto_map names code of the checkpoint's own")


@pytest.mark.parametrize("auto_map", [None, {}, {"AutoTokenizer": ["tokenization_x.XTokenizer", None]}], ids=repr)
def test_what_is_no_code_of_the_model(tmp_path: Path, auto_map: object) -> None:
    assert Checkpoint(folder_of(tmp_path, auto_map=auto_map)).custom_code is None


def test_an_auto_map_that_is_no_object(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"auto_map is 'modeling.X', expected an object; mend config.json"):
        Checkpoint(folder_of(tmp_path, auto_map="modeling.X"))


def test_is_causal_true_changes_nothing(tmp_path: Path) -> None:
    assert Checkpoint(folder_of(tmp_path, is_causal=True)).config.causal


def test_is_causal_that_is_no_answer(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is_causal is null, which transformers takes for false; write true or"):
        Checkpoint(folder_of(tmp_path, is_causal=None))


def test_an_option_that_contradicts_the_config(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="is_causal = true contradicts --attention bidirectional; leave the opt"):
        Checkpoint(folder_of(tmp_path, is_causal=True), BIDIRECTIONAL)


def test_windows_are_not_bidirectional(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="bidirectional attention with sliding windows is not supported, since"):
        Checkpoint(folder_of(tmp_path, use_sliding_window=True), BIDIRECTIONAL)


def test_no_text_is_generated(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "text-generation", is_causal=False)
    with pytest.raises(UnsupportedError, match=r"text-generation needs causal attention; give --task feature-extrac"):
        Checkpoint(folder).load()
    assert Checkpoint(folder).load("feature-extraction")(token_ids(1, 5)).last_hidden_state.shape == (1, 5, 64)
