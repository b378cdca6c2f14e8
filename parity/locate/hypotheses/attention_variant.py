"""The attention operator of both families, with everything that can be wrong about it left open."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...models.config import ModelConfig
from ...models.ops import KeyValue
from ...models.rope import RopeConfig, inverse_frequencies
from .symptoms import Symptom, split

Rotation = Callable[[Tensor], tuple[Tensor, Tensor]]
"""cos and sin [B, S, E/2] of positions [B, S]."""


@dataclass(frozen=True, eq=False)
class Attention:
    """An attention operator with everything that can be wrong about it.

    ``positions`` [B, T] and ``valid`` [B, T] are of all tokens; ``late`` moves the new tokens' angles. ``seen`` takes
    away from the mask (bool [B, 1, S, T]).
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
    late: int = 0
    interleaved: bool = False
    scale: float | None = None
    causal: bool = True
    cyclic: bool = False
    seen: Tensor | None = None

    def __call__(self) -> Tensor:
        """[B, S, H * E]."""
        config = self.config
        query, key, value = (split(x, config.head_dim).transpose(1, 2) for x in (self.query, self.key, self.value))
        size = query.shape[2]
        new = self.positions[:, -size:] + self.late
        if self.query_rotation is not None:
            query = rotate(query, *self.query_rotation(new), interleaved=self.interleaved)
        if self.key_rotation is not None:
            key = rotate(key, *self.key_rotation(new), interleaved=self.interleaved)
        if self.past is not None:
            key, value = torch.cat((self.past[0], key), 2), torch.cat((self.past[1], value), 2)
        repeats = config.num_attention_heads // config.num_key_value_heads
        if self.cyclic:
            key, value = key.repeat(1, repeats, 1, 1), value.repeat(1, repeats, 1, 1)
        else:
            key, value = key.repeat_interleave(repeats, 1), value.repeat_interleave(repeats, 1)
        scores = query @ key.transpose(-1, -2) * (self.scale or config.head_dim**-0.5)
        scores = scores.masked_fill(~self.mask(size), torch.finfo(scores.dtype).min)
        output: Tensor = (scores.softmax(-1) @ value).transpose(1, 2).flatten(-2)
        return output

    def mask(self, size: int) -> Tensor:
        """What each new token may see, bool [B, 1, S, T]."""
        slots = torch.arange(self.positions.shape[1])
        new = slots[-size:, None]
        seen = self.valid[:, None].expand(-1, size, -1)
        if self.causal:
            seen = seen & (slots <= new)
        if self.window is not None:
            seen = seen & (self.positions[:, -size:, None] - self.positions[:, None] < self.window)
        if self.seen is not None:
            seen = seen & self.seen
            return seen[:, None]
        return (seen | (slots == new))[:, None]


def rotate(x_BHSE: Tensor, cos: Tensor, sin: Tensor, *, interleaved: bool = False) -> Tensor:
    """RoPE of the pairs (i, i + E/2), or of the pairs (2i, 2i + 1)."""
    cos, sin = cos[:, None], sin[:, None]
    first, second = (x_BHSE[..., ::2], x_BHSE[..., 1::2]) if interleaved else x_BHSE.chunk(2, -1)
    rotated = first * cos - second * sin, second * cos + first * sin
    return torch.stack(rotated, -1).flatten(-2) if interleaved else torch.cat(rotated, -1)


def table_rotation(rope: RopeConfig, head_dim: int, *, long: bool = False) -> Rotation:
    """That of a scaling whose frequencies do not depend on the length, or are taken not to."""
    short_frequencies, long_frequencies, factor = inverse_frequencies(rope, head_dim)
    frequencies = long_frequencies if long else short_frequencies

    def rotation(positions: Tensor) -> tuple[Tensor, Tensor]:
        angles = positions[..., None].float() * frequencies
        return angles.cos() * factor, angles.sin() * factor

    return rotation


def sound(symptom: Symptom) -> Attention:
    """The operator as it should be."""
    config, plan, step = symptom.config, symptom.step.plan, symptom.step
    query, key, value = (symptom.value(place) for place in symptom.place.takes)
    rotation = planned_rotation(plan) if config.layer_rotary[symptom.layer] else None
    valid, positions = plan.valid_BT, plan.positions_BT
    window = config.layer_windows[symptom.layer]
    return Attention(config, query, key, value, step.past, positions, valid, window, rotation, rotation)


def planned_rotation(plan: Any) -> Rotation:
    """The angles of a plan, for its own positions only."""
    return lambda positions: (plan.cos, plan.sin)
