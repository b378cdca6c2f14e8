"""The comparison with transformers is sensitive: a definition that is wrong in one place fails it by far."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from intaglio.models.checkpoint import Checkpoint
from intaglio.models.config import ModelConfig
from torch import nn

from .drive import TOLERANCE, Pair, difference, padded, run_ours, run_theirs, token_ids
from .variants import BY_NAME, WINDOW

# How far beyond the tolerance a mistake must lie to count as noticed.
MARGIN = 10

Change = Callable[[ModelConfig], ModelConfig]


def window(size: int | None) -> Change:
    return lambda config: replace(config, layer_windows=tuple(w and size for w in config.layer_windows))


def rope(**changes: Any) -> Change:
    return lambda config: replace(config, rope=replace(config.rope, **changes))


def rotary(*flags: bool) -> Change:
    return lambda config: replace(config, layer_rotary=flags)


def windows(*sizes: int | None) -> Change:
    return lambda config: replace(config, layer_windows=sizes)


WRONG_CONFIGS: list[tuple[str, str, Change]] = [
    ("exaone4-plain", "window + 1", window(WINDOW + 1)),
    ("exaone4-plain", "window - 1", window(WINDOW - 1)),
    ("exaone4-plain", "no window", window(None)),
    ("exaone4-plain", "global layer rotates", rotary(True, True, True, True)),
    ("exaone4-plain", "one sliding layer does not rotate", rotary(True, False, True, True)),
    ("exaone4-plain", "last layer slides", windows(WINDOW, WINDOW, WINDOW, WINDOW)),
    ("exaone4-pattern-LLLG", "pattern without the last layer's rule", windows(*[WINDOW] * 3, None, *[WINDOW] * 2)),
    ("exaone4-global", "no layer rotates", rotary(False, False, False, False)),
    ("exaone4-plain", "Qwen2's eps", lambda config: replace(config, rms_norm_eps=1e-6)),
    ("qwen2-max-window-layers", "window + 1", window(WINDOW + 1)),
    ("qwen2-max-window-layers", "window - 1", window(WINDOW - 1)),
    ("qwen2-max-window-layers", "one layer too many", windows(None, WINDOW, WINDOW, WINDOW)),
    ("qwen2-plain", "EXAONE's eps", lambda config: replace(config, rms_norm_eps=1e-5)),
    ("qwen2-plain", "theta off by 1 %", rope(theta=10_100.0)),
    ("qwen2-rope-linear", "linear factor", rope(factor=2.6)),
    ("qwen2-rope-dynamic", "dynamic factor", rope(factor=3.1)),
    ("qwen2-rope-dynamic", "dynamic original length", rope(max_position_embeddings=17)),
    ("qwen2-rope-yarn", "yarn original length", rope(original_max_position_embeddings=64)),
    ("qwen2-rope-yarn", "yarn attention factor", rope(attention_factor=1.0)),
    ("qwen2-rope-yarn-mscale", "yarn truncated", rope(truncate=True)),
    ("qwen2-rope-yarn-attention", "yarn beta_fast", rope(beta_fast=1.1)),
    ("qwen2-rope-yarn-attention", "yarn beta_slow", rope(beta_slow=0.11)),
    ("qwen2-rope-longrope", "longrope original length", rope(original_max_position_embeddings=128)),
    ("qwen2-rope-longrope", "longrope attention factor", rope(attention_factor=1.0)),
    ("qwen2-rope-llama3-v4", "llama3 low_freq_factor", rope(low_freq_factor=1.1)),
    ("qwen2-rope-llama3-v4", "llama3 high_freq_factor", rope(high_freq_factor=4.4)),
    ("qwen2-rope-llama3-v4", "llama3 original length", rope(original_max_position_embeddings=18)),
]


@pytest.mark.parametrize(
    ("name", "mistake", "change"), WRONG_CONFIGS, ids=[f"{name}: {mistake}" for name, mistake, _ in WRONG_CONFIGS]
)
def test_a_wrong_description_fails(pair: Callable[..., Pair], name: str, mistake: str, change: Change) -> None:
    both = pair(BY_NAME[name])
    checkpoint = Checkpoint(both.folder)
    checkpoint.config = change(checkpoint.config)
    ids = token_ids(2, 40)
    assert difference(run_ours(checkpoint.load(), [ids]), run_theirs(both.fresh(), [ids])) > MARGIN * TOLERANCE


WRONG_WEIGHTS = [
    ("qwen2-plain", "layers.1.input_layernorm.weight", "layers.1.post_attention_layernorm.weight"),
    ("exaone4-plain", "layers.1.post_feedforward_layernorm.weight", "layers.1.post_attention_layernorm.weight"),
    ("exaone4-plain", "layers.2.self_attn.q_norm.weight", "layers.2.self_attn.k_norm.weight"),
    ("qwen2-plain", "layers.0.self_attn.k_proj.bias", "layers.0.self_attn.v_proj.bias"),
    ("qwen2-plain", "layers.3.mlp.gate_proj.weight", "layers.3.mlp.up_proj.weight"),
    ("exaone4-plain", "layers.0.post_attention_layernorm.weight", "layers.1.post_attention_layernorm.weight"),
]


@pytest.mark.parametrize(("name", "one", "other"), WRONG_WEIGHTS)
def test_swapped_weights_fail(pair: Callable[..., Pair], name: str, one: str, other: str) -> None:
    both = pair(BY_NAME[name])
    module = Checkpoint(both.folder).load()
    assert isinstance(module, nn.Module)
    first, second = module.get_parameter(f"model.{one}"), module.get_parameter(f"model.{other}")
    with torch.no_grad():
        kept = first.clone()
        first.copy_(second)
        second.copy_(kept)
    ids = token_ids(2, 12)
    assert difference(run_ours(module, [ids]), run_theirs(both.theirs, [ids])) > MARGIN * TOLERANCE


@pytest.mark.parametrize("name", ["qwen2-plain", "exaone4-global"])
def test_an_ignored_mask_fails(pair: Callable[..., Pair], name: str) -> None:
    both = pair(BY_NAME[name])
    ids, mask = padded((12, 5), "left")
    wrong = run_ours(both.ours, [ids], torch.ones_like(mask))
    assert difference(wrong[mask != 0], run_theirs(both.theirs, [ids], mask)[mask != 0]) > MARGIN * TOLERANCE
