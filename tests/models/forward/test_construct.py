"""A checkpoint folder in one call, and models from the configurations that transformers documents."""

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from intaglio.errors import CheckpointError, UnsupportedError, UsageError
from intaglio.models import ReadOptions, configure, create, load
from intaglio.models.heads import build
from intaglio.tests import tiny
from torch import nn

from ..drive import TOLERANCE, Pair, difference, token_ids
from ..variants import BY_NAME

FAMILIES = {"qwen2": "Qwen2", "exaone4": "Exaone4"}
SMALL: dict[str, Any] = {
    "vocab_size": 288,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 5,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
TASKS = ("text-generation", "feature-extraction", "text-classification", "token-classification", "question-answering")


def theirs(family: str, task: str, **values: Any) -> nn.Module:
    """Return transformers' module of a configuration, without weights."""
    config = getattr(transformers, f"{FAMILIES[family]}Config")(**values)
    config._attn_implementation = "eager"
    kind: Any = getattr(transformers, FAMILIES[family] + tiny.SUFFIXES[task])
    module: nn.Module = kind(config)
    return module.eval()


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_default_configuration_is_the_documented_one(family: str, task: Any) -> None:
    """``Qwen2Config()`` and ``Exaone4Config()``: the same parameters, windows and rotations."""
    with torch.device("meta"):
        ours, other = build(configure(family), task), theirs(family, task)
    assert {name: p.shape for name, p in ours.named_parameters()} == {
        name: p.shape for name, p in other.named_parameters()
    }
    config, wanted = configure(family), other.config
    assert isinstance(wanted, transformers.PreTrainedConfig)
    for key in ("vocab_size", "max_position_embeddings", "rms_norm_eps", "tie_word_embeddings", "pad_token_id"):
        assert getattr(config, key) == getattr(wanted, key), key
    assert config.rope.theta == wanted.rope_parameters["rope_theta"]
    windows = [wanted.sliding_window if kind == "sliding_attention" else None for kind in wanted.layer_types]
    assert list(config.layer_windows) == windows
    assert len(config.labels) == wanted.num_labels


PUBLISHED: list[tuple[str, dict[str, Any]]] = [
    ("qwen2", {}),
    ("qwen2", {"use_sliding_window": True, "sliding_window": 6, "max_window_layers": 2}),
    ("qwen2", {"rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}}),
    ("qwen2", {"num_key_value_heads": None, "tie_word_embeddings": True, "pad_token_id": 0}),
    ("exaone4", {}),
    ("exaone4", {"sliding_window": 6, "sliding_window_pattern": 3}),
    ("exaone4", {"sliding_window": None, "head_dim": 32, "layer_types": ["full_attention"] * 5}),
    ("exaone4", {"layer_types": ["full_attention", "sliding_attention"] * 2 + ["full_attention"], "sliding_window": 5}),
]


@pytest.mark.parametrize(("family", "values"), PUBLISHED, ids=[f"{f}-{'-'.join(v)}" for f, v in PUBLISHED])
def test_configurations_of_ones_own(family: str, values: dict[str, Any]) -> None:
    """The same values give the logits of transformers' module with the same weights."""
    other = theirs(family, "text-generation", **copy.deepcopy({**SMALL, **values}))
    torch.manual_seed(0)
    ours = create(configure(family, **{**SMALL, **values}))
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.mul_(2).add_(0.05 * torch.randn_like(parameter))  # no bias of 0, no scale of 1
        other.load_state_dict(ours.state_dict())
        ids = token_ids(2, 24)
        assert difference(ours(ids).logits, other(ids).logits) <= TOLERANCE


@pytest.mark.parametrize("tied", [False, True])
def test_initial_weights(tied: bool) -> None:
    config = configure("qwen2", **SMALL, tie_word_embeddings=tied, pad_token_id=3)
    torch.manual_seed(7)
    model = create(config, initializer_range=0.1, dtype=torch.bfloat16)
    assert not model.training
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert model.get_buffer("model.rotary_emb.inv_freq").dtype == torch.float32
    for name, parameter in model.named_parameters():
        values = parameter.float()
        if "norm" in name:
            assert (values == 1).all(), name
        elif name.endswith("bias"):
            assert (values == 0).all(), name
        else:
            assert values.std().item() == pytest.approx(0.1, rel=0.05), name
            assert abs(values.mean().item()) < 0.005, name
    assert (model.get_parameter("model.embed_tokens.weight")[3] == 0).all()
    assert (model.get_submodule("lm_head").weight is model.get_parameter("model.embed_tokens.weight")) == tied
    torch.manual_seed(7)
    again = create(config, initializer_range=0.1, dtype=torch.bfloat16)
    assert all(torch.equal(*two) for two in zip(model.parameters(), again.parameters(), strict=True))


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("name", ["qwen2-plain", "exaone4-plain"])
def test_loading_a_folder(pair: Callable[..., Pair], name: str, task: Any) -> None:
    both, ids = pair(BY_NAME[name], task), token_ids(2, 9)
    with torch.no_grad():
        found = load(both.folder)(ids, return_dict=False)[0]
        assert torch.equal(found, load(str(both.folder), task)(ids, return_dict=False)[0])
        assert difference(found, both.theirs(ids, return_dict=False)[0]) <= TOLERANCE
        bare = load(both.folder, "feature-extraction", dtype=torch.float64)(ids).last_hidden_state
    assert bare.dtype == torch.float64


def test_what_cannot_be_constructed(tmp_path: Path) -> None:
    task: Any = "translation"
    names = re.escape(", ".join(TASKS))
    with pytest.raises(UsageError, match=f"unknown task 'translation'; choose one of {names}"):
        create(configure("qwen2", **SMALL), task)
    with pytest.raises(UsageError, match=f"unknown task 'translation'; choose one of {names}"):
        load(tmp_path, task)
    with pytest.raises(UsageError, match="unknown family 'llama'; choose one of qwen2, exaone4"):
        configure("llama")
    with pytest.raises(CheckpointError, match=r"Qwen2Config: num_key_value_heads is 3, expected a divisor"):
        configure("qwen2", num_key_value_heads=3)
    with pytest.raises(UnsupportedError, match="Exaone4Config: unknown key"):
        configure("exaone4", no_such_key=1)
    with pytest.raises(CheckpointError, match=r"has no config\.json"):
        load(tmp_path, options=ReadOptions(ignore_auto_map=True))
