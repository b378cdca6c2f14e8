"""ai.onnx opset 24: Attention, RotaryEmbedding, RMSNormalization (onnx/docs/Operators.md).

Attention concatenates the past and takes any pattern of padding: the graph computes the mask from ``attention_mask``,
as the reference does.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from ...models.ops import Heads, KeyValue, ReferenceOps, ReferencePlan
from ...models.rope import RotaryEmbedding
from .experts import separate_experts
from .nodes import SharedOps, ints, node, nodes, rotary_embedding


class StandardOps(SharedOps):
    """Lowering to standard operators.

    Args:
        windows: every layer's window, None for global attention.
        dtype: of the activations.
    """

    opset = 24
    ir_version = 12

    def __init__(self, windows: Iterable[int | None], dtype: torch.dtype) -> None:
        self.windows = tuple(windows)
        self.dtype = dtype

    def plan(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        past_length: int,
        rotary: RotaryEmbedding,
        causal: bool,
    ) -> ReferencePlan:
        # What layers share is computed here, once for the graph, and not in the first layer that needs it.
        plan = ReferenceOps().plan(input_ids, attention_mask, past_length, rotary, causal)
        for window in self.windows:
            plan.mask(window)
        return replace(plan, cos=plan.cos.to(self.dtype), sin=plan.sin.to(self.dtype))

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
        if rotate:
            query = rotary_embedding(query, plan.cos, plan.sin, heads.query)
            key = rotary_embedding(key, plan.cos, plan.sin, heads.key_value)
        past_key, past_value = past if past is not None else (None, None)
        B, S = query.shape[:2]
        total = S + past_key.shape[2] if past_key is not None else S
        cache = [B, heads.key_value, total, heads.dim]
        output, present_key, present_value = nodes(
            "Attention",
            [query, key, value, plan.mask(window), past_key, past_value],
            [query.dtype] * 3,
            [query.shape, cache, cache],
            q_num_heads=heads.query,
            kv_num_heads=heads.key_value,
        )
        return output, (present_key, present_value)

    def experts(
        self,
        x: Tensor,
        router_logits: Tensor,
        mlps: Sequence[nn.Module],
        plan: ReferencePlan,
        top_k: int,
        normalize: bool,
    ) -> Tensor:
        return separate_experts(x, router_logits, mlps, top_k, normalize)

    def unembed(self, hidden: Tensor, weight: Tensor) -> Tensor:
        # Gemm takes the weight as it is stored, [V, D], so that one copy serves as the embedding too.
        B, S, D = hidden.shape
        V = weight.shape[0]
        rows = node("Reshape", [hidden, ints(-1, D)], hidden.dtype, [B * S, D])
        logits = node("Gemm", [rows, weight], hidden.dtype, [B * S, V], transB=1)
        batch_and_kept = node("Shape", [hidden], torch.int64, [2], start=0, end=2)
        shape = node("Concat", [batch_and_kept, ints(V)], torch.int64, [3], axis=0)
        return node("Reshape", [logits, shape], hidden.dtype, [B, S, V])
