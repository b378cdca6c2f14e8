"""The usual mistakes around an attention operator, each as what it would have given."""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ...models.family import FAMILIES
from ...models.rope import RotaryEmbedding
from .attention import Attention, Rotation, sound, table_rotation
from .symptoms import Candidate, Cause, Symptom, listed, matched, split

THETAS = (10_000.0, 100_000.0, 500_000.0, 1_000_000.0, 10_000_000.0, 1_000.0, 500.0)
ROWS = (2048, 4096)
"""Usual lengths of a table of angles."""
FITTED = 48
"""Steps of a search for the number that fits."""


def attention_mistakes(symptom: Symptom) -> Iterator[Candidate]:
    right = sound(symptom)
    yield from _windows(symptom, right)
    yield from _norms(symptom, right)
    yield from _rotations(symptom, right)
    yield from _masks(symptom, right)
    yield from _heads(symptom, right)
    yield from _fits(symptom, right)


def _windows(symptom: Symptom, right: Attention) -> Iterator[Candidate]:
    config, window = symptom.config, right.window
    others = [size for size in dict.fromkeys(config.layer_windows) if size is not None]
    if window is None:
        for size in (*others, *(size + by for size in others for by in (1, -1))):
            yield (
                f"attends to {_tokens(size)}, layer {symptom.layer} is global and has no window",
                replace(right, window=size)(),
            )
        return
    yield f"attends to everything, config.json's sliding_window is {window}", replace(right, window=None)()
    for size in (window + 1, window - 1, window + 2, window - 2, 2 * window, window // 2):
        if size > 0:
            yield f"attends to {_tokens(size)}, config.json's sliding_window is {window}", replace(right, window=size)()


def _tokens(count: int) -> str:
    return "1 token" if count == 1 else f"{count:,} tokens"


def _norms(symptom: Symptom, right: Attention) -> Iterator[Candidate]:
    if "self_attn.q_norm" not in symptom.place.takes:
        return
    query, key = symptom.value("self_attn.q_proj"), symptom.value("self_attn.k_proj")
    yield Cause("q_norm is skipped", key="self_attn.q_norm"), replace(right, query=query)()
    yield Cause("k_norm is skipped", key="self_attn.k_norm"), replace(right, key=key)()
    yield "q_norm and k_norm are skipped", replace(right, query=query, key=key)()


def _rotations(symptom: Symptom, right: Attention) -> Iterator[Candidate]:
    config, rope, dim = symptom.config, symptom.config.rope, symptom.config.head_dim
    plain = replace(rope, type="default")

    def turned(rotation: Rotation | None) -> Tensor:
        return replace(right, query_rotation=rotation, key_rotation=rotation)()

    if right.query_rotation is None:
        layer, family = symptom.layer, FAMILIES[config.family].title
        words = f"RoPE rotates this layer; layer {layer} is global and {family} has none there"
        lengths = right.positions[:, -1:] + 1
        yield words, turned(_own_rotation(symptom, lengths))
        yield f"{words} (and the angles are of the default type)", turned(table_rotation(plain, dim))
        return
    yield "RoPE is missing: queries and keys are not rotated", turned(None)
    yield "RoPE rotates the queries only", replace(right, key_rotation=None)()
    yield "RoPE rotates the keys only", replace(right, query_rotation=None)()
    if rope.type != "default":
        scaling = f"config.json's scaling of the type {rope.type!r} is left out"
        yield f"RoPE is of the default type: {scaling}", turned(table_rotation(plain, dim))
        for theta in THETAS:
            words = (
                f"RoPE is of the default type with theta {theta:,.0f}: {scaling}, and its theta is {rope.theta:,.0f}"
            )
            yield words, turned(table_rotation(replace(plain, theta=theta), dim))
    for theta in THETAS:
        if theta != rope.theta:
            words = f"RoPE's theta is {theta:,.0f}, config.json's rope_theta is {rope.theta:,.0f}"
            yield words, turned(table_rotation(replace(rope, theta=theta), dim))
    if rope.type == "longrope":
        for long in (False, True):
            length = rope.original_max_position_embeddings
            words = f"RoPE takes {'long' if long else 'short'}_factor whatever the length; it changes beyond {length}"
            yield words, turned(table_rotation(rope, dim, long=long))
    cos, sin = symptom.step.plan.cos, symptom.step.plan.sin
    yield "RoPE's cos and sin are exchanged", turned(lambda positions: (sin, cos))
    yield "RoPE turns the other way: sin has the wrong sign", turned(lambda positions: (cos, -sin))
    yield "RoPE rotates the pairs (2i, 2i + 1) in place of (i, i + head_dim/2)", replace(right, interleaved=True)()
    factor = float((cos.square() + sin.square()).mean().sqrt())
    if abs(factor - 1) > 1e-3:
        words = f"RoPE's attention_factor of {factor:.4g} is left out"
        yield words, turned(lambda positions: (cos / factor, sin / factor))
    if right.past is not None:
        moved = _own_rotation(symptom, right.positions[:, -1:] + 1)
        for late, word in ((1, "late"), (-1, "early")):
            words = f"the new tokens are rotated one position too {word}"
            yield words, replace(right, query_rotation=moved, key_rotation=moved, late=late)()
    own = _own_rotation(symptom, right.positions[:, -1:] + 1)
    for last in _last_angles(symptom, int(right.positions.max())):
        words = f"RoPE's angles end at position {last:,}: those of later positions repeat it"
        yield words, turned(lambda positions, last=last: own(positions.clamp(max=last)))  # type: ignore[misc]


def _last_angles(symptom: Symptom, last: int) -> list[int]:
    """Where a table of angles may end, before the last position."""
    config, seen = symptom.config, last_right(symptom)
    rows = {config.context_length // 2, config.context_length // 4, config.rope.original_max_position_embeddings, *ROWS}
    return [*([seen] if seen is not None else []), *sorted(count - 1 for count in rows if 1 < count <= last)]


def last_right(symptom: Symptom) -> int | None:
    """The position up to which all is right, where something behind it is not."""
    wanted, found = symptom.wanted.double(), symptom.found.double()
    if wanted.shape != found.shape or symptom.step.batch.padded:
        return None
    off = (wanted - found).norm(dim=-1) > 2 * symptom.budget * wanted.norm(dim=-1)
    wrong = off.any(0).nonzero().flatten()
    first = symptom.step.batch.past + int(wrong[0]) if len(wrong) else 0
    return first - 1 if len(wrong) and int(wrong[0]) > 0 else None


def _own_rotation(symptom: Symptom, length_B1: Tensor) -> Rotation:
    """config.json's RoPE for any positions, in rows of these lengths."""
    rotary = RotaryEmbedding(symptom.config.rope, symptom.config.head_dim)
    return lambda positions: rotary(positions, length_B1[:, 0])


def _masks(symptom: Symptom, right: Attention) -> Iterator[Candidate]:
    batch, past = symptom.step.batch, right.past
    size, total = right.query.shape[1], right.positions.shape[1]
    if batch.padded:
        everything = torch.ones_like(right.valid)
        counted = torch.arange(total).expand_as(right.positions)
        rotation = right.query_rotation and _own_rotation(symptom, counted[:, -1:] + 1)
        unmasked = replace(right, valid=everything, positions=counted, query_rotation=rotation, key_rotation=rotation)
        yield "the attention mask is ignored: padding counts as text", unmasked()
        yield "padding is attended to", replace(right, valid=everything)()
        yield (
            "padding counts in the positions",
            replace(right, positions=counted, query_rotation=rotation, key_rotation=rotation)(),
        )
    if size > 1:
        yield "a token sees those behind it: the mask is not causal", replace(right, causal=False)()
    if past is None:
        return
    length = past[0].shape[2]
    without = right.mask(size)[:, 0].clone()
    last = _last_cached(right, length)
    without &= ~last[:, None]
    yield "the last cached token is not seen", replace(right, seen=without)()
    rotation = right.query_rotation and _own_rotation(symptom, right.positions[:, -1:])
    positions = torch.cat((right.positions[:, :length], right.positions[:, length:] - 1), 1)
    early = replace(right, positions=positions, query_rotation=rotation, key_rotation=rotation)
    seen = early.mask(size)[:, 0] & ~last[:, None]
    words = (
        "the new tokens take the place of the last cached one, a position too early: the cache is taken to be shorter"
    )
    yield words, replace(early, seen=seen)()
    first = torch.zeros(length + size, dtype=torch.bool)
    first[0] = True
    yield "the first cached token is not seen", replace(right, seen=right.mask(size)[:, 0] & ~first)()
    behind = torch.arange(length + size) >= length
    yield "the cache is not seen", replace(right, seen=right.mask(size)[:, 0] & behind)()
    yield "the new tokens see the cache only", replace(right, seen=right.mask(size)[:, 0] & ~behind)()
    empty = (torch.zeros_like(past[0]), torch.zeros_like(past[1]))
    yield "it takes another layer's cache", replace(right, past=empty)()
    yield "cached keys and values are exchanged", replace(right, past=(past[1], past[0]))()


def _last_cached(right: Attention, length: int) -> Tensor:
    """bool [B, T]: in each row the last cached token that is no padding."""
    valid = right.valid[:, :length].long()
    last = (valid * torch.arange(1, length + 1)).argmax(-1)
    return torch.arange(right.valid.shape[1]) == last[:, None]


def _heads(symptom: Symptom, right: Attention) -> Iterator[Candidate]:
    config = symptom.config
    if config.num_attention_heads != config.num_key_value_heads:
        words = "query head h takes key-value head h % K in place of h // (H / K): repeat in place of repeat_interleave"
        yield words, replace(right, cyclic=True)()
    yield "keys and values are exchanged", replace(right, key=right.value, value=right.key)()
    for scale, name in (
        (1.0, "1 (they are not scaled)"),
        (1 / config.head_dim, "1/head_dim"),
        (config.hidden_size**-0.5, "1/sqrt(hidden_size)"),
    ):
        yield f"the scale of the scores is {name}, expected 1/sqrt(head_dim)", replace(right, scale=scale)()
    order = matched(split(symptom.wanted, config.head_dim), split(symptom.found, config.head_dim))
    if order is not None:
        heads = split(symptom.wanted, config.head_dim)
        yield f"its heads are in another order ({listed(order)})", heads[..., order, :].flatten(-2)


def _fits(symptom: Symptom, right: Attention) -> Iterator[Candidate]:
    """A number of the operator that is another one: which, is searched for."""
    config, rope = symptom.config, symptom.config.rope

    def scaled(value: float) -> Tensor:
        return replace(right, scale=value)()

    usual = config.head_dim**-0.5
    scale = search(lambda x: symptom.off(scaled(usual * x)), 1 / 64, 64) * usual
    if abs(scale / usual - 1) > 1e-3:
        yield f"the scale of the scores is {scale:.4g}, expected 1/sqrt(head_dim) = {usual:.4g}", scaled(scale)
    if right.query_rotation is None or rope.length_dependent:
        return
    for kind in dict.fromkeys((rope.type, "default")):

        def turned(theta: float, kind: Any = kind) -> Tensor:
            rotation = table_rotation(replace(rope, type=kind, theta=theta), config.head_dim)
            return replace(right, query_rotation=rotation, key_rotation=rotation)()

        theta = search(lambda x, turned=turned: symptom.off(turned(x)), 10.0, 1e9)  # type: ignore[misc]
        if kind == rope.type and abs(theta / rope.theta - 1) < 1e-3:
            continue
        words = f"RoPE's theta is about {theta:,.0f}, config.json's rope_theta is {rope.theta:,.0f}"
        yield words if kind == rope.type else f"{words}, and its type {rope.type!r} is left out", turned(theta)


def search(cost: Callable[[float], float], low: float, high: float) -> float:
    """Where ``cost`` is least between two positive numbers: on a grid of their logarithms, and then ever closer."""
    points = [math.log(low) + i / FITTED * math.log(high / low) for i in range(FITTED + 1)]
    best = min(range(len(points)), key=lambda i: cost(math.exp(points[i])))
    left, right = points[max(0, best - 1)], points[min(FITTED, best + 1)]
    golden = (math.sqrt(5) - 1) / 2
    for _ in range(FITTED):
        one, other = right - golden * (right - left), left + golden * (right - left)
        if cost(math.exp(one)) <= cost(math.exp(other)):
            right = other
        else:
            left = one
    return math.exp((left + right) / 2)
