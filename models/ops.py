"""The fused operators the families are written in, with their PyTorch reference.

In eager mode a call runs the reference below. While the exporter traces, it installs its own ``FusedOps`` (see
``exporter/lowering/``), and the same call becomes one ONNX node. Queries, keys and values stay three-dimensional
([B, S, H*E]) between operators, as the ONNX operators take them.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import UsageError
from .rope import RotaryEmbedding

KeyValue = tuple[Tensor, Tensor]
"""Keys and values of one layer, each [B, K, T, E]; keys are stored rotated."""


@dataclass(frozen=True)
class Heads:
    """The heads of an attention layer: H query heads, K key/value heads, E values each."""

    query: int
    key_value: int
    dim: int


class FusedOps(Protocol):
    """An implementation of the fused operators; the functions below document each."""

    def plan(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        past_length: int,
        rotary: RotaryEmbedding,
        causal: bool,
    ) -> Any: ...

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor: ...

    def head_norm(self, x: Tensor, weight: Tensor, eps: float, heads: int) -> Tensor: ...

    def attention(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        past: KeyValue | None,
        plan: Any,
        heads: Heads,
        window: int | None,
        rotate: bool,
    ) -> tuple[Tensor, KeyValue]: ...

    def experts(
        self, x: Tensor, router_logits: Tensor, mlps: Sequence[nn.Module], plan: Any, top_k: int, normalize: bool
    ) -> Tensor: ...

    def keep(self, hidden: Tensor, positions: int | Tensor) -> Tensor: ...

    def unembed(self, hidden: Tensor, weight: Tensor) -> Tensor: ...


def plan(
    input_ids: Tensor,
    attention_mask: Tensor | None,
    past_length: int,
    rotary: RotaryEmbedding,
    *,
    causal: bool = True,
) -> Any:
    """Compute what all layers share in one forward pass: positions, masks, rotary angles. Opaque to the families.

    Args:
        input_ids: [B, S], or the embeddings [B, S, D] in their place: only the first two sizes are read.
        attention_mask: [B, T] with T = past_length + S, nonzero where there is a token; None for all tokens.
        past_length: number of cached positions.
        causal: tokens attend to themselves and to earlier ones; otherwise to the whole sequence.
    """
    return _ops.get().plan(input_ids, attention_mask, past_length, rotary, causal)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Compute x / rms(x) * weight over dimension D in float32 (Zhang & Sennrich, 2019): x [..., D], weight [D]."""
    return _ops.get().rms_norm(x, weight, eps)


def head_norm(x: Tensor, weight: Tensor, eps: float, heads: int) -> Tensor:
    """Apply ``rms_norm`` to each head separately. x [B, S, heads*E], weight [E]."""
    return _ops.get().head_norm(x, weight, eps, heads)


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    past: KeyValue | None,
    plan: Any,
    heads: Heads,
    *,
    window: int | None,
    rotate: bool,
) -> tuple[Tensor, KeyValue]:
    """Compute grouped-query attention (Ainslie et al., 2023), with RoPE on the new queries and keys.

    Whether it is causal is part of ``plan``.

    Args:
        query: [B, S, H*E]; key and value: [B, S, K*E].
        past: cached keys and values [B, K, P, E], or None.
        window: each token sees this many tokens, itself included; None sees all before it.
        rotate: whether RoPE applies in this layer.

    Returns:
        the heads' outputs [B, S, H*E], and keys and values [B, K, P+S, E].
    """
    return _ops.get().attention(query, key, value, past, plan, heads, window, rotate)


def experts(
    x: Tensor, router_logits: Tensor, mlps: Sequence[nn.Module], plan: Any, *, top_k: int, normalize: bool
) -> Tensor:
    """Compute a mixture of experts (Shazeer et al., 2017): for each token the weighted sum of ``top_k`` outputs.

    The weights are the softmax in float32 over all X experts, of which the ``top_k`` largest are taken.

    Args:
        x: [B, S, D].
        router_logits: [B, S, X].
        mlps: the X experts, each ``layers.MLP`` with ``gate_proj`` [F, D], ``up_proj`` [F, D] and ``down_proj`` [D, F].
        normalize: scale the weights of each token to the sum 1.

    Returns:
        [B, S, D].
    """
    return _ops.get().experts(x, router_logits, mlps, plan, top_k, normalize)


def at_positions(plan: Any, position_ids: Tensor, rotary: RotaryEmbedding, packed: bool) -> Any:
    """Return the plan with the new tokens at given positions, which rotate them; not while the exporter traces.

    Padding and windows count tokens as before.

    Args:
        position_ids: [B, S] or [1, S].
        packed: a position that is not one more than the one before starts another sequence of the same row, and tokens
            attend to their own sequence only.
    """
    assert isinstance(plan, ReferencePlan)
    positions = position_ids.expand(plan.positions_BT.shape[0], -1)
    cos, sin = rotary(positions, positions.amax(-1) + 1)
    sequences = None
    if packed:
        starts = positions.diff(prepend=positions[:, :1] - 1) != 1
        sequences = starts.cumsum(-1)
    return replace(plan, cos=cos, sin=sin, masks={}, sequences=sequences)


def with_attentions(plan: Any) -> Any:
    """Return the plan with ``attentions``, to which each layer adds its weights; not while the exporter traces."""
    assert isinstance(plan, ReferencePlan)
    return replace(plan, attentions=[])


def with_router_logits(plan: Any) -> Any:
    """Return the plan with ``router_logits``, to which each mixture adds its own; not while the exporter traces."""
    assert isinstance(plan, ReferencePlan)
    return replace(plan, router_logits=[])


def keep(hidden: Tensor, positions: int | Tensor) -> Tensor:
    """Return the positions of [B, S, D] that get logits (transformers' ``logits_to_keep``).

    Args:
        positions: how many of the last ones, 0 for all; or indices [n] or [B, n], or bool [B, S], which gives
            [n, D] without the batch. While the exporter traces, a tensor [1] is how many of the last ones: a graph has
            the number as an input.

    Raises:
        UsageError: a tensor of another form.
    """
    return _ops.get().keep(hidden, positions)


def unembed(hidden: Tensor, weight: Tensor) -> Tensor:
    """Compute logits [B, S, V] of hidden [B, S, D] with a weight [V, D], which may be the embedding's."""
    return _ops.get().unembed(hidden, weight)


def lowering() -> bool:
    """Return true while the exporter traces."""
    return not isinstance(_ops.get(), ReferenceOps)


@contextmanager
def lowered(ops: FusedOps) -> Iterator[None]:
    """Replace the reference by ``ops`` within the block."""
    token = _ops.set(ops)
    try:
        yield
    finally:
        _ops.reset(token)


@dataclass
class ReferencePlan:
    """``positions_BT`` of all tokens, ``valid_BT`` false on padding, cos and sin [B, S, E/2] of the new tokens.

    Unless ``causal``, a token attends to later ones too; such layers have no window.
    ``sequences``: [B, S], tokens attend to those with the same number only; None for one sequence in each row.
    ``attentions``: where each layer adds its weights [B, H, S, T]; None where they are not asked for.
    ``router_logits``: where each mixture of experts adds its own [B*S, X]; None where they are not asked for.
    """

    positions_BT: Tensor
    valid_BT: Tensor
    past_length: int
    cos: Tensor
    sin: Tensor
    masks: dict[int | None, Tensor]
    causal: bool = True
    sequences: Tensor | None = None
    attentions: list[Tensor] | None = None
    router_logits: list[Tensor] | None = None

    def mask(self, window: int | None) -> Tensor:
        """Return the attention mask, bool [B, 1, S, T], true where a new token attends."""
        if window not in self.masks:
            positions, past = self.positions_BT, self.past_length
            slots = torch.arange(positions.shape[1], device=positions.device)
            seen = (slots <= slots[past:, None]) & self.valid_BT[:, None] if self.causal else self.valid_BT[:, None]
            if window is not None:
                assert self.causal
                seen &= positions[:, past:, None] - positions[:, None] < window
            if self.sequences is not None:
                seen = seen & (self.sequences[:, :, None] == self.sequences[:, None])
            # A padding token would see nothing, and softmax over nothing is NaN: it attends to itself.
            self.masks[window] = (seen | (slots == slots[past:, None]))[:, None]
        return self.masks[window]


class ReferenceOps:
    """The operators in plain PyTorch: the definition that every lowering is compared with."""

    def plan(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        past_length: int,
        rotary: RotaryEmbedding,
        causal: bool,
    ) -> ReferencePlan:
        B, S = input_ids.shape[:2]
        if attention_mask is None:
            attention_mask = torch.ones(B, past_length + S, dtype=torch.int64, device=input_ids.device)
        valid = attention_mask != 0
        positions = (valid.cumsum(-1) - 1).clamp(min=0)
        cos, sin = rotary(positions[:, past_length:], positions[:, -1] + 1)
        return ReferencePlan(positions, valid, past_length, cos, sin, {}, causal)

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        wide = x.to(torch.float32)
        normed = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)
        return weight * normed.to(x.dtype)

    def head_norm(self, x: Tensor, weight: Tensor, eps: float, heads: int) -> Tensor:
        return self.rms_norm(_split(x, heads, weight.shape[0]), weight, eps).flatten(-2)

    def attention(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        past: KeyValue | None,
        plan: ReferencePlan,
        heads: Heads,
        window: int | None,
        rotate: bool,
    ) -> tuple[Tensor, KeyValue]:
        query_BHSE = _split(query, heads.query, heads.dim).transpose(1, 2)
        key_BKSE = _split(key, heads.key_value, heads.dim).transpose(1, 2)
        value_BKSE = _split(value, heads.key_value, heads.dim).transpose(1, 2)
        if rotate:
            query_BHSE = _rotate(query_BHSE, plan.cos, plan.sin)
            key_BKSE = _rotate(key_BKSE, plan.cos, plan.sin)
        if past is not None:
            key_BKSE = torch.cat((past[0], key_BKSE), 2)
            value_BKSE = torch.cat((past[1], value_BKSE), 2)
        if plan.attentions is None:
            output = F.scaled_dot_product_attention(
                query_BHSE, key_BKSE, value_BKSE, attn_mask=plan.mask(window), enable_gqa=heads.query != heads.key_value
            )
        else:
            output, weights = _weighted(query_BHSE, key_BKSE, value_BKSE, plan.mask(window))
            plan.attentions.append(weights)
        return output.transpose(1, 2).flatten(-2), (key_BKSE, value_BKSE)

    def experts(
        self,
        x: Tensor,
        router_logits: Tensor,
        mlps: Sequence[nn.Module],
        plan: ReferencePlan,
        top_k: int,
        normalize: bool,
    ) -> Tensor:
        tokens, logits = x.flatten(0, -2), router_logits.flatten(0, -2)
        if plan.router_logits is not None:
            plan.router_logits.append(logits)
        weights, chosen = logits.softmax(-1, dtype=torch.float32).topk(top_k, -1)
        if normalize:
            weights = weights / weights.sum(-1, keepdim=True)
        weights = weights.to(logits.dtype)
        output = torch.zeros_like(tokens)
        for index, mlp in enumerate(mlps):
            token, rank = torch.where(chosen == index)
            if len(token):
                output.index_add_(0, token, (mlp(tokens[token]) * weights[token, rank, None]).to(output.dtype))
        return output.view_as(x)

    def keep(self, hidden: Tensor, positions: int | Tensor) -> Tensor:
        if not isinstance(positions, Tensor):
            return hidden[:, -positions:] if positions else hidden
        if positions.dim() == 1 and positions.dtype != torch.bool:
            return hidden[:, positions]
        if positions.dim() == 2 and positions.shape[0] == hidden.shape[0]:
            rows = torch.arange(hidden.shape[0], device=positions.device)[:, None]
            return hidden[positions] if positions.dtype == torch.bool else hidden[rows, positions]
        raise UsageError(
            f"logits_to_keep is a {str(positions.dtype).removeprefix('torch.')} tensor of shape "
            f"{list(positions.shape)} for {hidden.shape[0]} rows of {hidden.shape[1]} tokens; give how many of the "
            "last positions as an int, or positions [n] or [B, n], or bool [B, S]"
        )

    def unembed(self, hidden: Tensor, weight: Tensor) -> Tensor:
        return F.linear(hidden, weight)


def _split(x: Tensor, heads: int, dim: int) -> Tensor:
    """Reshape [B, S, heads*E] to [B, S, heads, E]."""
    return x.reshape(*x.shape[:-1], heads, dim)


def _weighted(query_BHSE: Tensor, key_BKSE: Tensor, value_BKSE: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return the outputs [B, H, S, E] and the weights [B, H, S, T], whose softmax is taken in float32."""
    groups = query_BHSE.shape[1] // key_BKSE.shape[1]
    key, value = key_BKSE.repeat_interleave(groups, 1), value_BKSE.repeat_interleave(groups, 1)
    scores = query_BHSE @ key.transpose(-1, -2) * query_BHSE.shape[-1] ** -0.5
    weights = scores.masked_fill(~mask, -torch.inf).softmax(-1, dtype=torch.float32).to(query_BHSE.dtype)
    return weights @ value, weights


def _rotate(x_BHSE: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate the pairs (i, i + E/2) by the angles of their positions; cos and sin [B, S, E/2]."""
    cos, sin = cos[:, None].to(x_BHSE.dtype), sin[:, None].to(x_BHSE.dtype)
    first, second = x_BHSE.chunk(2, -1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), -1)


_ops: ContextVar[FusedOps] = ContextVar("fused operators", default=ReferenceOps())  # noqa: B039 - it has no state
