"""A damaged or hostile checkpoint is refused; the message names what, where, and the remedy."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from intaglio.errors import CheckpointError, InputError, UnsupportedError
from intaglio.models.checkpoint import Checkpoint
from intaglio.tests import tiny
from safetensors.torch import save_file
from torch import Tensor

from .sound import EMBED, FIRST, INDEX, SECOND, SINGLE, Q, sharded, whole

# Each makes a sound folder unsound, and says what the message must contain, where
# {folder} is replaced by the folder.

Damage = Callable[[Path], None]


def rewrite(folder: Path, changes: dict[str, Tensor | None], **config: Any) -> None:
    stored = {**whole(folder, **config), **changes}
    save_file({name: tensor for name, tensor in stored.items() if tensor is not None}, folder / SINGLE)


def reindex(folder: Path, placed: object) -> None:
    index = sharded(folder)
    index["weight_map"][EMBED] = placed
    (folder / INDEX).write_text(json.dumps(index))


def text(name: str, content: str) -> Damage:
    def damage(folder: Path) -> None:
        sharded(folder)
        (folder / name).write_text(content)

    return damage


def cut(name: str, keep: Callable[[int], int]) -> Damage:
    def damage(folder: Path) -> None:
        sharded(folder)
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: keep(len(content))])

    return damage


def remove(name: str) -> Damage:
    def damage(folder: Path) -> None:
        sharded(folder)
        (folder / name).unlink()

    return damage


def pipe(name: str) -> Damage:
    def damage(folder: Path) -> None:
        sharded(folder)
        (folder / name).unlink()
        os.mkfifo(folder / name)

    return damage


def corrupt_header(folder: Path) -> None:
    whole(folder)
    content = bytearray((folder / SINGLE).read_bytes())
    content[8:20] = b"\xff" * 12
    (folder / SINGLE).write_bytes(content)


def huge_header(folder: Path) -> None:
    whole(folder)
    (folder / SINGLE).write_bytes((1 << 60).to_bytes(8, "little") + b"{}")


def in_two_shards(folder: Path) -> None:
    index = sharded(folder)
    stored = tiny.weights(tiny.config("qwen2"))
    second = {name: stored[name] for name, file in index["weight_map"].items() if file == SECOND}
    save_file({**second, EMBED: stored[EMBED]}, folder / SECOND)


def misplaced(folder: Path) -> None:
    assert sharded(folder)["weight_map"][EMBED] == FIRST
    reindex(folder, SECOND)


def only_pickles(folder: Path) -> None:
    whole(folder)
    (folder / SINGLE).rename(folder / "pytorch_model.bin")


def no_config(folder: Path) -> None:
    whole(folder)
    (folder / "config.json").unlink()


def foreign(folder: Path) -> None:
    whole(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"architectures": ["LlamaForCausalLM"]}))


def contradicting_type(folder: Path) -> None:
    whole(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "exaone4"}))


zeros = torch.zeros
NOT_WHOLE = "is not a whole safetensors file ("
DAMAGES: list[tuple[str, type[InputError], Damage, str]] = [
    ("no config", CheckpointError, no_config, "{folder} has no config.json; give the folder of a checkpoint in"),
    ("config no json", CheckpointError, text("config.json", "{"), "{folder}/config.json cannot be read ("),
    (
        "config a list",
        CheckpointError,
        text("config.json", "[]"),
        "{folder}/config.json: expected a JSON object; fetch",
    ),
    (
        "unknown architecture",
        UnsupportedError,
        foreign,
        "{folder}/config.json: architecture 'LlamaForCausalLM' (model_type 'qwen2') is not supported; supported are "
        "Qwen2ForCausalLM, Qwen2Model, ",
    ),
    (
        "two families",
        CheckpointError,
        contradicting_type,
        "{folder}/config.json: model_type is 'exaone4', expected qwen2, to go with the architecture Qwen2ForCausalLM",
    ),
    ("missing shard", CheckpointError, remove(SECOND), f"{{folder}}/{SECOND} is missing, {INDEX} names it; fetch the"),
    ("truncated shard", CheckpointError, cut(SECOND, lambda size: size - 100), f"{{folder}}/{SECOND} {NOT_WHOLE}"),
    ("half a header", CheckpointError, cut(FIRST, lambda _: 100), f"{{folder}}/{FIRST} {NOT_WHOLE}"),
    ("empty shard", CheckpointError, cut(FIRST, lambda _: 0), f"{{folder}}/{FIRST} {NOT_WHOLE}"),
    ("corrupt header", CheckpointError, corrupt_header, f"{{folder}}/{SINGLE} {NOT_WHOLE}"),
    ("huge header", CheckpointError, huge_header, f"{{folder}}/{SINGLE} {NOT_WHOLE}"),
    ("no weights", CheckpointError, remove(INDEX), f"{{folder}} has neither {SINGLE} nor {INDEX}; fetch the"),
    (
        "pickles",
        UnsupportedError,
        only_pickles,
        "{folder}: pytorch_model.bin is a pickle, which can run any code when opened, and is not read; convert it to "
        "safetensors first",
    ),
    (
        "index no json",
        CheckpointError,
        text(INDEX, "nonsense"),
        f"{{folder}}/{INDEX} cannot be read (Expecting value",
    ),
    (
        "index a list",
        CheckpointError,
        text(INDEX, "[1]"),
        f"{{folder}}/{INDEX}: expected a JSON object; fetch it again",
    ),
    (
        "index no map",
        CheckpointError,
        text(INDEX, '{"weight_map": 3}'),
        f"{{folder}}/{INDEX}: weight_map is 3, expected an object; fetch it again",
    ),
    ("index empty", CheckpointError, text(INDEX, "{}"), f"{{folder}}/{INDEX} is not a safetensors index with a"),
    (
        "config nested",
        CheckpointError,
        text("config.json", '{"a":' * 100_000),
        "{folder}/config.json cannot be read (it is nested deeper than 100 levels); fetch",
    ),
    ("config a pipe", CheckpointError, pipe("config.json"), "{folder}/config.json cannot be read (it is a named pipe"),
    ("weights a pipe", CheckpointError, pipe(FIRST), "{folder}/" + FIRST + " cannot be read (it is a named pipe"),
    (
        "a name too long",
        CheckpointError,
        lambda folder: reindex(folder, "x" * 300),
        "cannot be read (File name too long",
    ),
    ("index a pipe", CheckpointError, pipe(INDEX), "{folder}/" + INDEX + " cannot be read (it is a named pipe"),
    (
        "in two shards",
        CheckpointError,
        in_two_shards,
        f"{{folder}}/{SECOND}: tensor {EMBED} is in {FIRST} too; fetch the checkpoint again",
    ),
    (
        "misplaced",
        CheckpointError,
        misplaced,
        f"{{folder}}/{INDEX}: tensor {EMBED} should be in {SECOND} and is not; fetch the checkpoint again",
    ),
    (
        "wrong shape",
        CheckpointError,
        lambda folder: rewrite(folder, {Q: zeros(64, 60)}),
        f"{{folder}}/{SINGLE}: tensor {Q} has shape (64, 60), expected (64, 64) from config.json; the config and the",
    ),
    (
        "another size",
        CheckpointError,
        lambda folder: rewrite(folder, {EMBED: zeros(300, 64)}),
        f"{{folder}}/{SINGLE}: tensor {EMBED} has shape (300, 64), expected (288, 64) from config.json",
    ),
    (
        "int8",
        UnsupportedError,
        lambda folder: rewrite(folder, {Q: zeros(64, 64, dtype=torch.int8)}),
        f"{{folder}}/{SINGLE}: tensor {Q} has dtype I8; supported are F32, F16, BF16, F64: use the checkpoint",
    ),
    (
        "whole numbers without settings",
        UnsupportedError,
        lambda folder: rewrite(folder, {Q: zeros(64, 64).to(torch.int8)}),
        f"{{folder}}/{SINGLE}: tensor {Q} has dtype I8; supported are",
    ),
    (
        "missing tensor",
        CheckpointError,
        lambda folder: rewrite(folder, {Q: None}),
        f"{{folder}}: 1 tensor is missing, first {Q}, which text-generation with this config.json needs; the config",
    ),
    (
        "missing tensors",
        CheckpointError,
        lambda folder: rewrite(folder, {Q: None, "model.norm.weight": None}),
        "{folder}: 2 tensors are missing, first ",
    ),
    (
        "no embedding",
        CheckpointError,
        lambda folder: rewrite(folder, {EMBED: None}),
        "{folder}: no tensor model.embed_tokens.weight, transformer.embed_tokens.weight or embed_tokens.weight; the",
    ),
    (
        "no head",
        CheckpointError,
        lambda folder: rewrite(folder, {"lm_head.weight": None}),
        "{folder}: 1 tensor is missing, first lm_head.weight, which text-generation with this config.json needs; give "
        "--task feature-extraction if the model makes embeddings, or set tie_word_embeddings to true if",
    ),
    (
        "surplus",
        CheckpointError,
        lambda folder: rewrite(folder, {"model.layers.4.mlp.up_proj.weight": zeros(96, 64), "x": zeros(2)}),
        f"{{folder}}/{SINGLE}: text-generation with this config.json has no place for 2 of its tensors, first "
        "model.layers.4.mlp.up_proj.weight; the config and the weights belong to different models",
    ),
    (
        "surplus bias",
        CheckpointError,
        lambda folder: rewrite(folder, {"model.layers.0.self_attn.o_proj.bias": zeros(64)}),
        "has no place for 1 of its tensors, first model.layers.0.self_attn.o_proj.bias; the config",
    ),
    (
        "another head",
        CheckpointError,
        lambda folder: rewrite(folder, {"score.weight": zeros(2, 64)}),
        "has no place for 1 of its tensors, first score.weight; the config",
    ),
    (
        "tied but different",
        CheckpointError,
        lambda folder: rewrite(folder, {"lm_head.weight": zeros(288, 64)}, tie_word_embeddings=True),
        f"{{folder}}/{SINGLE}: lm_head.weight differs from {EMBED}, although config.json has tie_word_embeddings = "
        "true; set it to false if the head has weights of its own",
    ),
    (
        "tied, another dtype",
        CheckpointError,
        lambda folder: rewrite(folder, {"lm_head.weight": zeros(288, 64).half()}, tie_word_embeddings=True),
        f"{{folder}}/{SINGLE}: lm_head.weight differs from {EMBED}, although",
    ),
    (
        "tied, int8",
        UnsupportedError,
        lambda folder: rewrite(folder, {"lm_head.weight": zeros(288, 64).char()}, tie_word_embeddings=True),
        f"{{folder}}/{SINGLE}: tensor lm_head.weight has dtype I8; supported are",
    ),
    (
        "tied, another shape",
        CheckpointError,
        lambda folder: rewrite(folder, {"lm_head.weight": zeros(280, 64)}, tie_word_embeddings=True),
        f"{{folder}}/{SINGLE}: tensor lm_head.weight has shape (280, 64), expected (288, 64) from config.json",
    ),
]
OUTSIDE = ["../x.safetensors", "/etc/passwd", "sub/x.safetensors", "..", ".", "", "..\\x.safetensors", 3, None]


@pytest.mark.parametrize(
    ("kind", "damage", "message"), [case[1:] for case in DAMAGES], ids=[case[0] for case in DAMAGES]
)
def test_damage(tmp_path: Path, kind: type[InputError], damage: Damage, message: str) -> None:
    damage(tmp_path)
    with pytest.raises(kind) as caught:
        Checkpoint(tmp_path).load()
    assert message.format(folder=tmp_path) in str(caught.value)


@pytest.mark.parametrize("placed", OUTSIDE, ids=repr)
def test_an_index_that_points_outside(tmp_path: Path, placed: object) -> None:
    reindex(tmp_path / "checkpoint", placed)
    whole(tmp_path / "other")
    (tmp_path / "other" / SINGLE).rename(tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError) as caught:
        Checkpoint(tmp_path / "checkpoint")
    assert f"{INDEX}: weight_map places {EMBED} in {placed!r}, outside the folder; only plain" in str(caught.value)


def test_a_head_that_is_not_there(tmp_path: Path) -> None:
    whole(tmp_path)
    with pytest.raises(CheckpointError) as caught:
        Checkpoint(tmp_path).load("question-answering")
    assert (
        f"{tmp_path}: 2 tensors are missing, first qa_outputs.weight, which question-answering with this config.json "
        "needs; the checkpoint is for text-generation: leave out --task, or give one with this head"
    ) in str(caught.value)


def test_a_file_that_shrinks_after_it_was_opened(tmp_path: Path) -> None:
    whole(tmp_path)
    opened = Checkpoint(tmp_path)
    (tmp_path / SINGLE).write_bytes((tmp_path / SINGLE).read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match=rf"tensor {EMBED} cannot be read \(.*fetch the file again"):
        opened.tensor(EMBED)
