"""Checkpoints as trainers and wrappers leave them compute what transformers computes from the plain folder."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from intaglio.artifact import Task
from intaglio.errors import CheckpointError, UnsupportedError
from intaglio.models.checkpoint import Checkpoint
from intaglio.models.loading.parameters import note_on_left_out
from intaglio.models.reading.options import ReadOptions
from intaglio.tests import tiny
from safetensors.torch import save_file
from torch import Tensor

from .drive import TOLERANCE, difference, open_pair, token_ids
from .sound import INDEX, SINGLE, whole
from .variants import BY_NAME

Tensors = dict[str, Tensor]
Change = Callable[[Tensors], Tensors]
LM_HEAD, EMBED = "lm_head.weight", "model.embed_tokens.weight"
V_HEAD = {"v_head.summary.weight": torch.zeros(1, 64), "v_head.summary.bias": torch.zeros(1)}


def prefixed(prefix: str) -> Change:
    return lambda tensors: {prefix + name: tensor for name, tensor in tensors.items()}


def renamed(old: str, new: str) -> Change:
    return lambda tensors: {name.replace(old, new, 1): tensor for name, tensor in tensors.items()}


def plus(more: Tensors) -> Change:
    return lambda tensors: {**tensors, **more}


def float64(tensors: Tensors) -> Tensors:
    """Add what float32 rounds away."""
    return {name: tensor.double() * (1 + 1e-9) for name, tensor in tensors.items()}


def tied_in_another_dtype(tensors: Tensors) -> Tensors:
    embedding = tensors[EMBED].bfloat16()
    return {**tensors, EMBED: embedding.float(), LM_HEAD: embedding}


READ_WITHOUT = "tensor names are read without"
LAYOUTS: dict[str, tuple[Task, dict[str, Any], Change, tuple[str, ...]]] = {
    "module": ("text-generation", {}, prefixed("module."), (f"{READ_WITHOUT} the prefix module.",)),
    "compiled": ("text-generation", {}, prefixed("_orig_mod."), (f"{READ_WITHOUT} _orig_mod",)),
    "compiled layers": (
        "token-classification",
        {},
        renamed(".self_attn.", "._orig_mod.self_attn."),
        (f"{READ_WITHOUT} _orig_mod",),
    ),
    "both": (
        "text-generation",
        {},
        prefixed("module._orig_mod."),
        (f"{READ_WITHOUT} _orig_mod", f"{READ_WITHOUT} the prefix module."),
    ),
    "peft": (
        "text-classification",
        {},
        prefixed("base_model.model."),
        (f"{READ_WITHOUT} the prefix base_model.model.",),
    ),
    "language model": (
        "text-generation",
        {},
        renamed("model.", "model.language_model."),
        ("the prefix model.language_model. of tensor names is read as model.",),
    ),
    "bare trunk": ("feature-extraction", {}, prefixed("encoder."), (f"{READ_WITHOUT} the prefix encoder.",)),
    "head under a trunk": (
        "feature-extraction",
        {},
        plus({LM_HEAD: torch.zeros(288, 64)}),
        ("1 tensor is left out, which feature-extraction does not read: lm_head.weight",),
    ),
    "head under a classifier": (
        "text-classification",
        {},
        plus({LM_HEAD: torch.zeros(288, 64)}),
        ("1 tensor is left out, which text-classification does not read: lm_head.weight",),
    ),
    "value head": (
        "text-generation",
        {},
        plus(V_HEAD),
        ("2 tensors are left out, which text-generation does not read: v_head.summary.bias, v_head.summary.weight",),
    ),
    "float64": ("text-generation", {}, float64, ("float64 weights are read as float32",)),
    "tied in another dtype": ("text-generation", {"tie_word_embeddings": True}, tied_in_another_dtype, ()),
}


@pytest.mark.parametrize(("task", "changes", "change", "notes"), LAYOUTS.values(), ids=LAYOUTS)
def test_equals_transformers(
    tmp_path: Path, task: Task, changes: dict[str, Any], change: Change, notes: tuple[str, ...]
) -> None:
    values = tiny.config("qwen2", task, **changes)
    plain = tiny.weights(values)
    if change is tied_in_another_dtype:
        plain[EMBED] = plain[EMBED].bfloat16().float()
    tiny.write(tmp_path / "plain", values, tensors=plain)
    both = open_pair(tmp_path / "pair", BY_NAME["qwen2-plain"], task, **changes)
    theirs = type(both.theirs).from_pretrained(tmp_path / "plain", dtype=torch.float32, attn_implementation="eager")
    turned = tmp_path / "turned"
    turned.mkdir()
    (turned / "config.json").write_text(json.dumps(values))
    save_file({name: tensor.contiguous() for name, tensor in change(plain).items()}, turned / SINGLE)
    checkpoint = Checkpoint(turned)
    assert (*checkpoint.notes, *filter(None, [note_on_left_out(checkpoint, task)])) == notes
    ids = token_ids(2, 12)
    with torch.no_grad():
        ours, expected = checkpoint.load()(ids), theirs.eval()(ids)
    name = "last_hidden_state" if task == "feature-extraction" else "logits"
    assert difference(getattr(ours, name), getattr(expected, name)) <= TOLERANCE


def test_an_index_that_names_a_tied_head(tmp_path: Path) -> None:
    tiny.write(tmp_path, tiny.config("qwen2", tie_word_embeddings=True), shards=2)
    index = json.loads((tmp_path / INDEX).read_text())
    index["weight_map"][LM_HEAD] = "model-00002-of-00002.safetensors"
    (tmp_path / INDEX).write_text(json.dumps(index))
    assert Checkpoint(tmp_path).notes == (
        f"{INDEX} names lm_head.weight, which no file holds: the embedding is the head",
    )
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}))
    with pytest.raises(CheckpointError, match=r"tensor lm_head.weight should be in model-00002-of-00002.safetensors a"):
        Checkpoint(tmp_path)


def saved(folder: Path, tensors: Tensors, task: Task = "text-generation", **changes: Any) -> Path:
    return tiny.write(folder, tiny.config("qwen2", task, **changes), tensors=tensors)


def test_two_tensors_of_one_name(tmp_path: Path) -> None:
    tensors = tiny.weights(tiny.config("qwen2"))
    folder = saved(tmp_path, {**tensors, "model._orig_mod.norm.weight": torch.zeros(64)})
    with pytest.raises(CheckpointError, match=r"tensors .*norm.weight and .*norm.weight are both model.norm.weight; r"):
        Checkpoint(folder)


def test_a_picture_model_is_not_a_text_model(tmp_path: Path) -> None:
    tensors = renamed("model.", "model.language_model.")(tiny.weights(tiny.config("qwen2")))
    folder = saved(tmp_path, {**tensors, "model.visual.blocks.0.attn.qkv.weight": torch.zeros(4, 4)})
    with pytest.raises(CheckpointError, match=r"no place for 1 of its tensors, first model.visual.blocks.0.attn.qkv.w"):
        Checkpoint(folder).load()


@pytest.mark.parametrize("part", ["q_proj.lora_A.default.weight", "q_proj.base_layer.weight"])
def test_an_adapter_that_is_not_merged(tmp_path: Path, part: str) -> None:
    tensors = {**tiny.weights(tiny.config("qwen2")), f"model.layers.0.self_attn.{part}": torch.zeros(4, 64)}
    with pytest.raises(UnsupportedError, match=r"belongs to an adapter \(LoRA\) that is not merged into the weights; "):
        Checkpoint(saved(tmp_path, tensors))


def test_biases_against_attention_bias(tmp_path: Path) -> None:
    folder = saved(tmp_path, tiny.weights(tiny.config("qwen2")), attention_bias=False)
    with pytest.raises(CheckpointError, match=r"k_proj.bias is a bias, and config.json has attention_bias = false; re"):
        Checkpoint(folder).load()


def test_an_embedding_model_that_calls_itself_a_causal_lm(tmp_path: Path) -> None:
    tensors = tiny.weights(tiny.config("qwen2", "feature-extraction"))
    folder = saved(tmp_path, tensors)
    with pytest.raises(CheckpointError, match=r"first lm_head.weight.*of a bare model: give --task feature-extraction"):
        Checkpoint(folder).load()
    Checkpoint(folder).load("feature-extraction")


def test_a_head_tied_to_other_values(tmp_path: Path) -> None:
    tensors = tiny.weights(tiny.config("qwen2", tie_word_embeddings=True))
    folder = saved(tmp_path, {**tensors, LM_HEAD: tensors[EMBED].half()}, tie_word_embeddings=True)
    tensors = {**tensors, LM_HEAD: tensors[EMBED].half()}
    save_file(tensors, folder / SINGLE)
    with pytest.raises(CheckpointError, match=r"lm_head.weight differs from model.embed_tokens.weight, although"):
        Checkpoint(folder).load()


ADAPTER = {"base_model_name_or_path": "Qwen/Qwen2-7B", "peft_type": "LORA"}


def with_adapter(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps(ADAPTER))
    save_file({"base_model.model.x.lora_A.weight": torch.zeros(2, 2)}, folder / "adapter_model.safetensors")
    return folder


def test_an_adapter_beside_the_weights(tmp_path: Path) -> None:
    whole(tmp_path)
    with_adapter(tmp_path)
    with pytest.raises(UnsupportedError) as caught:
        Checkpoint(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}: an adapter (LoRA) lies beside the full weights (adapter_config.json, adapter_model.safetensors), "
        f"and transformers would apply it; give --adapter {tmp_path} to merge it, or --ignore-adapter to read the full "
        "weights alone"
    )
    left_out = "an adapter (LoRA) beside the weights (adapter_config.json, adapter_model.safetensors) is left out, as "
    assert Checkpoint(tmp_path, ReadOptions(ignore_adapter=True)).notes == (f"{left_out}--ignore-adapter says",)
    assert (
        Checkpoint(tmp_path, ReadOptions(describe=True)).notes[0].startswith("an adapter (LoRA) lies beside the full")
    )
