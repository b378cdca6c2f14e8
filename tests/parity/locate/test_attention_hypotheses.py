"""Mistakes in attention are named: each is made in the native definition and then diagnosed."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from intaglio.models.config import ModelConfig
from intaglio.tests.models.variants import GLOBAL, LLAMA3, LONGROPE, YARN
from torch import Tensor, nn

from .source_layer import SIZE, SourceLayer, source_layer


def attention(layer: SourceLayer, config: ModelConfig) -> Tensor:
    """Return the attention operator's output under another config."""
    return layer.run_with(config).activations["self_attn"]


def windows(config: ModelConfig, index: int, window: int | None) -> ModelConfig:
    values = [*config.layer_windows]
    values[index] = window
    return replace(config, layer_windows=tuple(values))


def rotary(config: ModelConfig, index: int, rotates: bool) -> ModelConfig:
    values = [*config.layer_rotary]
    values[index] = rotates
    return replace(config, layer_rotary=tuple(values))


@pytest.mark.parametrize("past", [0, 20])
@pytest.mark.parametrize(("size", "text"), [(7, "7 tokens"), (5, "5 tokens"), (None, "all tokens"), (12, "12 tokens")])
def test_windows(tmp_path: Path, size: int | None, text: str, past: int) -> None:
    layer = source_layer(tmp_path, "exaone4", index=1, past=past)
    actual = attention(layer, windows(layer.config, 1, size))
    assert layer.cause("self_attn", actual) == f"attends to {text}, config.json's sliding_window is 6"


def test_a_window_where_there_is_none(tmp_path: Path) -> None:
    layer = source_layer(tmp_path, "exaone4", index=3)
    actual = attention(layer, windows(layer.config, 3, 6))
    assert layer.cause("self_attn", actual) == "attends to 6 tokens, layer 3 is global and has no window"


def test_rope_where_there_is_none(tmp_path: Path) -> None:
    layer = source_layer(tmp_path, "exaone4", index=3)
    actual = attention(layer, rotary(layer.config, 3, True))
    text = "RoPE is applied to this layer, layer 3 is global and EXAONE 4.0 has none there"
    assert layer.cause("self_attn", actual) == text


def test_no_rope(tmp_path: Path) -> None:
    layer = source_layer(tmp_path, "exaone4", index=0)
    actual = attention(layer, rotary(layer.config, 0, False))
    assert layer.cause("self_attn", actual) == "RoPE is missing: queries and keys are not rotated"


@pytest.mark.parametrize("past", [0, 20])
@pytest.mark.parametrize(
    ("theta", "text"),
    [
        (1e6, "RoPE's theta is 1,000,000, config.json's rope_theta is 10,000"),
        (500_000.0, "RoPE's theta is 500,000, config.json's rope_theta is 10,000"),
        (31_234.0, "RoPE's theta is about 31,234, config.json's rope_theta is 10,000"),
    ],
)
def test_thetas(tmp_path: Path, theta: float, text: str, past: int) -> None:
    layer = source_layer(tmp_path, "qwen2", past=past)
    actual = attention(layer, replace(layer.config, rope=replace(layer.config.rope, theta=theta)))
    assert layer.cause("self_attn", actual) == text


@pytest.mark.parametrize("rope", [LLAMA3 | {"original_max_position_embeddings": 16}, YARN], ids=["llama3", "yarn"])
def test_a_scaling_left_out(tmp_path: Path, rope: Mapping[str, Any]) -> None:
    layer = source_layer(tmp_path, "exaone4", rope=rope, changes=GLOBAL)
    actual = attention(layer, replace(layer.config, rope=replace(layer.config.rope, type="default")))
    text = f"RoPE is of the default type: config.json's scaling of type '{rope['rope_type']}' is left out"
    assert layer.cause("self_attn", actual) == text


def test_the_factors_of_longrope(tmp_path: Path) -> None:
    layer = source_layer(tmp_path, "qwen2", rope=LONGROPE, changes={"max_position_embeddings": 64})
    rope = layer.config.rope
    actual = attention(layer, replace(layer.config, rope=replace(rope, long_factor=rope.short_factor)))
    text = "RoPE uses short_factor at every length, the factors change beyond 16"
    assert layer.cause("self_attn", actual) == text


def test_the_factor_on_cos_and_sin(tmp_path: Path) -> None:
    layer = source_layer(tmp_path, "qwen2", rope=YARN)
    actual = attention(layer, replace(layer.config, rope=replace(layer.config.rope, attention_factor=1.0)))
    assert layer.cause("self_attn", actual) == "RoPE's attention_factor of 1.139 is left out"


@pytest.mark.parametrize(
    ("factor", "text"),
    [
        (0.25, "the scale of the scores is 1/head_dim, expected 1/sqrt(head_dim)"),
        (4.0, "the scale of the scores is 1 (they are not scaled), expected 1/sqrt(head_dim)"),
        (1.37, "the scale of the scores is 0.3425, expected 1/sqrt(head_dim) = 0.25"),
    ],
)
def test_scales(tmp_path: Path, factor: float, text: str) -> None:
    def change(layer: nn.Module) -> None:
        layer.get_submodule("self_attn.q_norm").get_parameter("weight").mul_(factor)

    layer = source_layer(tmp_path, "exaone4", index=1)
    assert layer.cause("self_attn", layer.run_with(change=change).activations["self_attn"]) == text


def test_heads_in_another_order(tmp_path: Path) -> None:
    layer = source_layer(tmp_path, "qwen2")
    heads = layer.activations["self_attn"].view(1, SIZE, 4, 16)
    actual = heads[:, :, [2, 0, 1, 3]].flatten(2)
    assert layer.cause("self_attn", actual) == "its heads are in a different order (2, 0, 1, 3)"
