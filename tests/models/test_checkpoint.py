"""A sound checkpoint is read as it is, a tensor at a time."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from intaglio.models.checkpoint import Checkpoint
from intaglio.models.storage import safetensors_files
from intaglio.tests import tiny
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from .drive import token_ids
from .sound import EMBED, SECOND, SINGLE, Q, sharded, whole


def state(folder: Path, task: Any = None) -> dict[str, Tensor]:
    return Checkpoint(folder).load(task).state_dict()


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# Sound checkpoints


@pytest.mark.parametrize("family", ["qwen2", "exaone4"])
@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("tied", [False, True])
def test_every_tensor_arrives(tmp_path: Path, family: str, shards: int, tied: bool) -> None:
    values = tiny.config(family, tie_word_embeddings=tied)
    stored = tiny.weights(values)
    tiny.write(tmp_path, values, shards=shards)
    loaded = state(tmp_path)
    assert torch.equal(loaded.pop("lm_head.weight"), stored.pop("lm_head.weight", stored[EMBED]))
    assert same(loaded, stored)


@pytest.mark.parametrize("task", ["feature-extraction", "text-classification", "question-answering"])
@pytest.mark.parametrize("prefix", ["model.", "transformer.", ""])
def test_every_prefix_is_the_same_model(tmp_path: Path, task: str, prefix: str) -> None:
    values = tiny.config("exaone4", task)
    assert same(
        state(tiny.write(tmp_path / "usual", values)), state(tiny.write(tmp_path / "other", values, prefix=prefix))
    )


def test_the_task_is_the_architectures(tmp_path: Path) -> None:
    for family in ("qwen2", "exaone4"):
        for task in tiny.SUFFIXES:
            assert Checkpoint(tiny.write(tmp_path / family / task, tiny.config(family, task))).task == task


def test_another_task_leaves_the_head_out(tmp_path: Path) -> None:
    stored = whole(tmp_path, "text-classification")
    del stored["score.weight"]
    assert same(state(tmp_path, "feature-extraction"), {n.removeprefix("model."): t for n, t in stored.items()})
    whole(tmp_path / "lm")
    assert "norm.weight" in state(tmp_path / "lm", "feature-extraction")


def test_without_architectures_a_language_model(tmp_path: Path) -> None:
    tiny.write(tmp_path, tiny.config("exaone4"))
    config = json.loads((tmp_path / "config.json").read_text())
    del config["architectures"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert Checkpoint(tmp_path).task == "text-generation"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened_exactly(tmp_path: Path, dtype: torch.dtype) -> None:
    values = tiny.config("qwen2")
    tiny.write(tmp_path, values, dtype=dtype)
    loaded = state(tmp_path)
    for name, stored in tiny.weights(values).items():
        assert loaded[name].dtype == torch.float32
        assert torch.equal(loaded[name], stored.to(dtype).float())
    assert Checkpoint(tmp_path).tensor(Q).dtype == dtype


def test_surplus_that_changes_nothing_is_left_alone(tmp_path: Path) -> None:
    stored = whole(tmp_path, tie_word_embeddings=True)
    extra = {"lm_head.weight": stored[EMBED].clone(), "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8)}
    before = state(tmp_path)
    save_file(stored | extra, tmp_path / SINGLE)
    assert same(state(tmp_path), before)


def test_one_file_wins_over_an_index(tmp_path: Path) -> None:
    sharded(tmp_path)
    (tmp_path / SECOND).unlink()
    whole(tmp_path)
    assert Checkpoint(tmp_path).files == (tmp_path / SINGLE,)


def test_a_linked_file_is_read(tmp_path: Path) -> None:
    """The hub's cache is made of links that lead out of the folder."""
    whole(tmp_path / "blobs")
    (tmp_path / "snapshot").mkdir()
    for name in ("config.json", SINGLE):
        (tmp_path / "snapshot" / name).symlink_to(tmp_path / "blobs" / name)
    assert same(state(tmp_path / "snapshot"), state(tmp_path / "blobs"))


# Reading piece by piece


@pytest.mark.parametrize("name", [EMBED, Q, "model.norm.weight", "model.layers.0.self_attn.k_proj.bias"])
@pytest.mark.parametrize("chunk", [1, 1000, 4096, 1 << 26])
def test_rows_are_the_tensor_in_pieces(tmp_path: Path, name: str, chunk: int) -> None:
    stored = whole(tmp_path)[name]
    row = stored[0].nbytes
    opened = Checkpoint(tmp_path)
    pieces = list(opened.rows(name, chunk))
    assert torch.equal(torch.cat([piece for _, piece in pieces]), stored)
    assert [start for start, _ in pieces] == list(range(0, len(stored), len(pieces[0][1])))
    assert all(piece.nbytes <= max(chunk, row) for _, piece in pieces)
    assert torch.equal(opened.tensor(name), stored)


def test_one_file_is_open_at_a_time_and_none_afterwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An open file keeps every page it was read through in memory."""
    sharded(tmp_path)
    real, now, most, read = safe_open, 0, 0, []

    class Watched:
        def __init__(self, *arguments: Any) -> None:
            self.opened: Any = real(*arguments)

        def __enter__(self) -> "Watched":
            nonlocal now, most
            now += 1
            most = max(most, now)
            self.inner = self.opened.__enter__()
            return self

        def __exit__(self, *error: Any) -> None:
            nonlocal now
            now -= 1
            self.opened.__exit__(*error)

        def get_tensor(self, name: str) -> Tensor:
            read.append(name)
            tensor: Tensor = self.inner.get_tensor(name)
            return tensor

        def __getattr__(self, name: str) -> Any:
            return getattr(self.inner, name)

    monkeypatch.setattr(safetensors_files, "safe_open", Watched)
    opened = Checkpoint(tmp_path)
    assert read == []  # headers only
    opened.load()
    list(opened.rows(EMBED, 1000))
    assert (now, most) == (0, 1)
    assert sorted(read) == sorted(opened.tensors)  # each once


def test_the_loaded_module_no_longer_needs_the_file(tmp_path: Path) -> None:
    whole(tmp_path)
    loaded = Checkpoint(tmp_path).load()
    ids = token_ids(1, 6)
    with torch.no_grad():
        before = loaded(ids).logits
        (tmp_path / SINGLE).write_bytes(b"")
        assert torch.equal(loaded(ids).logits, before)
