"""Usual mistakes of an attention operator: its window, norms, mask, cache, heads and scale."""

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from .attention_variant import AttentionVariant, config_rotation, correct_attention
from .mismatch import Cause, Hypothesis, Mismatch, permuted_heads
from .rope import fitted_theta, minimize, rope_hypotheses


def attention_hypotheses(mismatch: Mismatch) -> Iterator[Hypothesis]:
    correct = correct_attention(mismatch)
    yield from _windows(mismatch, correct)
    yield from _norms(mismatch, correct)
    yield from rope_hypotheses(mismatch, correct)
    yield from _masks(mismatch, correct)
    yield from _caches(mismatch, correct)
    yield from _heads(mismatch, correct)
    yield from _fitted_scale(mismatch, correct)
    yield from fitted_theta(mismatch, correct)


def _windows(mismatch: Mismatch, correct: AttentionVariant) -> Iterator[Hypothesis]:
    window = correct.window
    others = [size for size in dict.fromkeys(mismatch.config.layer_windows) if size is not None]
    if window is None:
        for size in (*others, *(size + by for size in others for by in (1, -1))):
            text = f"attends to {_tokens(size)}, layer {mismatch.layer} is global and has no window"
            yield text, replace(correct, window=size)()
        return
    yield f"attends to all tokens, config.json's sliding_window is {window}", replace(correct, window=None)()
    for size in (window + 1, window - 1, window + 2, window - 2, 2 * window, window // 2):
        if size > 0:
            text = f"attends to {_tokens(size)}, config.json's sliding_window is {window}"
            yield text, replace(correct, window=size)()


def _tokens(count: int) -> str:
    return "1 token" if count == 1 else f"{count:,} tokens"


def _norms(mismatch: Mismatch, correct: AttentionVariant) -> Iterator[Hypothesis]:
    if "self_attn.q_norm" not in mismatch.tap.inputs:
        return
    query, key = mismatch.activation("self_attn.q_proj"), mismatch.activation("self_attn.k_proj")
    yield Cause("q_norm is skipped", tap="self_attn.q_norm"), replace(correct, query=query)()
    yield Cause("k_norm is skipped", tap="self_attn.k_norm"), replace(correct, key=key)()
    yield "q_norm and k_norm are skipped", replace(correct, query=query, key=key)()


def _masks(mismatch: Mismatch, correct: AttentionVariant) -> Iterator[Hypothesis]:
    if mismatch.layer_run.scenario.has_padding:
        everything = torch.ones_like(correct.valid)
        counted = torch.arange(correct.positions.shape[1]).expand_as(correct.positions)
        rotation = correct.query_rotation and config_rotation(mismatch.config, counted[:, -1:] + 1)
        unmasked = correct.rotated_by(rotation, valid=everything, positions=counted)
        yield "the attention mask is ignored: padding is treated as text", unmasked()
        yield "padding is attended to", replace(correct, valid=everything)()
        yield "padding is counted in the positions", correct.rotated_by(rotation, positions=counted)()
    if correct.query.shape[1] > 1:
        text = "tokens attend to later tokens: the mask is not causal"
        if not correct.causal:
            text = "tokens do not attend to later tokens: the mask is causal"
        yield text, replace(correct, causal=not correct.causal)()


def _caches(mismatch: Mismatch, correct: AttentionVariant) -> Iterator[Hypothesis]:
    """Yield mistakes of tokens that follow a cache."""
    past = correct.past
    if past is None:
        return

    def attending(where: Tensor) -> Tensor:
        return replace(correct, visible=correct.mask() & where)()

    length = past[0].shape[2]
    slots = torch.arange(correct.positions.shape[1])
    last = _last_cached(correct, length)[:, None]
    yield "the last cached token is not attended to", attending(~last)
    rotation = correct.query_rotation and config_rotation(mismatch.config, correct.positions[:, -1:])
    positions = torch.cat((correct.positions[:, :length], correct.positions[:, length:] - 1), 1)
    early = correct.rotated_by(rotation, positions=positions)
    text = "the new tokens overwrite the last cached one, a position too early: the length of the cache is one too low"
    yield text, replace(early, visible=early.mask() & ~last)()
    yield "the first cached token is not attended to", attending(slots != 0)
    yield "the cache is not attended to", attending(slots >= length)
    yield "the new tokens attend to the cache only", attending(slots < length)
    empty = (torch.zeros_like(past[0]), torch.zeros_like(past[1]))
    yield "it reads another layer's cache", replace(correct, past=empty)()
    yield "cached keys and values are swapped", replace(correct, past=(past[1], past[0]))()


def _last_cached(correct: AttentionVariant, length: int) -> Tensor:
    """Return bool [B, T]: the last cached token of each sequence that is not padding."""
    valid = correct.valid[:, :length].long()
    last = (valid * torch.arange(1, length + 1)).argmax(-1)
    return torch.arange(correct.valid.shape[1]) == last[:, None]


def _heads(mismatch: Mismatch, correct: AttentionVariant) -> Iterator[Hypothesis]:
    config = mismatch.config
    if config.num_attention_heads != config.num_key_value_heads:
        text = "query head h uses key-value head h % K instead of h // (H / K): repeat instead of repeat_interleave"
        yield text, replace(correct, cyclic=True)()
    yield "keys and values are swapped", replace(correct, key=correct.value, value=correct.key)()
    for scale, name in (
        (1.0, "1 (they are not scaled)"),
        (1 / config.head_dim, "1/head_dim"),
        (config.hidden_size**-0.5, "1/sqrt(hidden_size)"),
    ):
        yield f"the scale of the scores is {name}, expected 1/sqrt(head_dim)", replace(correct, scale=scale)()
    yield from permuted_heads(mismatch)


def _fitted_scale(mismatch: Mismatch, correct: AttentionVariant) -> Iterator[Hypothesis]:
    """Yield the scale of the scores that fits the artifact's output best."""
    expected = mismatch.config.head_dim**-0.5
    factor = minimize(lambda factor: mismatch.error_under(replace(correct, scale=expected * factor)()), 1 / 64, 64)
    scale = factor * expected
    if abs(factor - 1) > 1e-3:
        text = f"the scale of the scores is {scale:.4g}, expected 1/sqrt(head_dim) = {expected:.4g}"
        yield text, replace(correct, scale=scale)()
