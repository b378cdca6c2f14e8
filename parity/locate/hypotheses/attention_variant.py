"""The attention operator of all families, with a parameter for everything that can be wrong in it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ....models.config import ModelConfig
from ....models.ops import KeyValue
from ....models.rope import RopeConfig, RotaryEmbedding, inverse_frequencies
from .mismatch import Mismatch, split_heads

Rotation = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Returns cos and sin [B, S, E/2] for positions [B, S]."""


@dataclass(frozen=True, eq=False)
class AttentionVariant:
    """An attention operator that may be wrong; call it for its output [B, S, H * E].

    Args:
        positions: [B, T], of cached and new tokens.
        valid: bool [B, T], the tokens that are not padding.
        offset: added to the positions of the new tokens when they are rotated.
        interleaved: RoPE rotates the pairs (2i, 2i + 1) instead of (i, i + E/2).
        scale: of the scores; None for 1/sqrt(E).
        cyclic: query head h uses key-value head h % K instead of h // (H / K).
        visible: bool [B, S, T] or less, which removes tokens from the mask.
    """

    config: ModelConfig
    query: Tensor
    key: Tensor
    value: Tensor
    past: KeyValue | None
    positions: Tensor
    valid: Tensor
    window: int | None
    query_rotation: Rotation | None
    key_rotation: Rotation | None
    offset: int = 0
    interleaved: bool = False
    scale: float | None = None
    causal: bool = True
    cyclic: bool = False
    visible: Tensor | None = None

    def __call__(self) -> Tensor:
        config = self.config
        query, key, value = (
            split_heads(x, config.head_dim).transpose(1, 2) for x in (self.query, self.key, self.value)
        )
        positions = self.positions[:, -query.shape[2] :] + self.offset
        if self.query_rotation is not None:
            query = rotate(query, *self.query_rotation(positions), interleaved=self.interleaved)
        if self.key_rotation is not None:
            key = rotate(key, *self.key_rotation(positions), interleaved=self.interleaved)
        if self.past is not None:
            key, value = torch.cat((self.past[0], key), 2), torch.cat((self.past[1], value), 2)
        repeats = config.num_attention_heads // config.num_key_value_heads
        if self.cyclic:
            key, value = key.repeat(1, repeats, 1, 1), value.repeat(1, repeats, 1, 1)
        else:
            key, value = key.repeat_interleave(repeats, 1), value.repeat_interleave(repeats, 1)
        scores = query @ key.transpose(-1, -2) * (self.scale or config.head_dim**-0.5)
        scores = scores.masked_fill(~self.mask()[:, None], torch.finfo(scores.dtype).min)
        output: Tensor = (scores.softmax(-1) @ value).transpose(1, 2).flatten(-2)
        return output

    def mask(self) -> Tensor:
        """Return the tokens that each new token attends to, bool [B, S, T]."""
        size = self.query.shape[1]
        slots = torch.arange(self.positions.shape[1])
        own = slots[-size:, None]
        visible = self.valid[:, None].expand(-1, size, -1)
        if self.causal:
            visible = visible & (slots <= own)
        if self.window is not None:
            visible = visible & (self.positions[:, -size:, None] - self.positions[:, None] < self.window)
        if self.visible is not None:
            return visible & self.visible
        return visible | (slots == own)

    def rotated_by(self, rotation: Rotation | None, **changes: Any) -> "AttentionVariant":
        """Return the operator with another rotation of both queries and keys."""
        return replace(self, query_rotation=rotation, key_rotation=rotation, **changes)


def correct_attention(mismatch: Mismatch) -> AttentionVariant:
    """Return the operator as the source has it."""
    config, plan, layer_run = mismatch.config, mismatch.layer_run.plan, mismatch.layer_run
    query, key, value = (mismatch.activation(tap) for tap in mismatch.tap.inputs)
    rotation = _planned_rotation(plan) if config.layer_rotary[mismatch.layer] else None
    window = config.layer_windows[mismatch.layer]
    return AttentionVariant(
        config,
        query,
        key,
        value,
        layer_run.past,
        plan.positions_BT,
        plan.valid_BT,
        window,
        rotation,
        rotation,
        causal=config.causal,
    )


def rotate(x_BHSE: Tensor, cos: Tensor, sin: Tensor, *, interleaved: bool = False) -> Tensor:
    """Apply RoPE to the pairs (i, i + E/2), or to the pairs (2i, 2i + 1)."""
    cos, sin = cos[:, None], sin[:, None]
    first, second = (x_BHSE[..., ::2], x_BHSE[..., 1::2]) if interleaved else x_BHSE.chunk(2, -1)
    rotated = first * cos - second * sin, second * cos + first * sin
    return torch.stack(rotated, -1).flatten(-2) if interleaved else torch.cat(rotated, -1)


def fixed_rotation(rope: RopeConfig, head_dim: int, *, long: bool = False) -> Rotation:
    """Return a rotation whose frequencies do not depend on the length; ``long`` takes LongRoPE's long factors."""
    short_frequencies, long_frequencies, factor = inverse_frequencies(rope, head_dim)
    frequencies = long_frequencies if long else short_frequencies

    def rotation(positions: Tensor) -> tuple[Tensor, Tensor]:
        angles = positions[..., None].float() * frequencies
        return angles.cos() * factor, angles.sin() * factor

    return rotation


def config_rotation(config: ModelConfig, length_B1: Tensor) -> Rotation:
    """Return config.json's rotation for any positions, in sequences of the given lengths."""
    rotary = RotaryEmbedding(config.rope, config.head_dim)
    return lambda positions: rotary(positions, length_B1[:, 0])


def _planned_rotation(plan: Any) -> Rotation:
    """Return the rotation by a plan's angles, for the plan's own positions only."""
    return lambda positions: (plan.cos, plan.sin)
