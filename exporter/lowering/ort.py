"""ONNX Runtime's fused operators: GroupQueryAttention, SimplifiedLayerNormalization, FusedMatMul.

Specification: onnxruntime/docs/ContribOperators.md. GroupQueryAttention takes batches padded on the right only, with
lengths as ``seqlens_k``: padding before or between tokens would be read as text. A row of ``attention_mask`` that is
not ones and then zeros therefore fails in a node of its own, before the first layer, on every execution provider; in a
decode step, one that does not begin with a one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...contract import MASK_CHECK
from ...devices.presets import USUAL, GraphForm
from ...errors import UnsupportedError
from ...models.config import ModelConfig
from ...models.ops import Heads, KeyValue
from ...models.rope import RotaryEmbedding
from .experts import fused_experts, separate_experts
from .nodes import SharedOps, ints, node, nodes, rotary_embedding, scalar
from .standard import StandardOps


@dataclass(frozen=True)
class OrtPlan:
    """``seqlens_k`` int32 [B] (last valid index), ``total`` int32 [1]; cos and sin are the tables [rows, E/2] that
    GroupQueryAttention indexes itself, or ``RotaryEmbedding`` of com.microsoft by ``positions`` [B, S]; or, where no
    table serves, the angles [B, S, E/2] of the new tokens."""

    seqlens_k: Tensor
    total: Tensor
    cos: Tensor
    sin: Tensor
    positions: Tensor | None = None


class OrtOps(SharedOps):
    """Lowering to ``com.microsoft`` operators.

    Args:
        dtype: of the activations.
        table_rows: the number of positions of the tables of cos and sin; None where the angles depend on more than the
            position, or GroupQueryAttention cannot rotate heads of this size.
        form: what the device wants otherwise than usual.
    """

    opset = 23
    ir_version = 11
    norm = "SimplifiedLayerNormalization"

    def __init__(self, dtype: torch.dtype, *, table_rows: int | None, form: GraphForm = USUAL) -> None:
        self.dtype = dtype
        self.table_rows = table_rows
        self.opset = form.opset or self.opset
        self.rotates_inside = form.rotates_inside and table_rows is not None
        self.fuses_experts = form.fused_experts

    def plan(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        past_length: int,
        rotary: RotaryEmbedding,
        causal: bool,
    ) -> OrtPlan:
        assert attention_mask is not None
        assert causal
        total = node("Shape", [attention_mask], torch.int64, [1], start=1, end=2)
        last, count = _last_tokens(input_ids, attention_mask, total)
        if self.table_rows is None:
            cos, sin = rotary(self._positions(input_ids, count, total), count)
            return OrtPlan(_int32(last), _int32(total), cos.to(self.dtype), sin.to(self.dtype))
        cos, sin = self._tables(self.table_rows, count, rotary)
        positions = None if self.rotates_inside else self._positions(input_ids, count, total)
        return OrtPlan(_int32(last), _int32(total), cos, sin, positions)

    def _tables(self, rows: int, count: Tensor, rotary: RotaryEmbedding) -> tuple[Tensor, Tensor]:
        # Nothing here depends on an input: ONNX Runtime computes it once, at load, and the file need not hold it.
        positions = node("Range", [scalar(0), scalar(rows), scalar(1)], torch.int64, [rows])
        cos, sin = rotary(positions[None], count)
        return cos[0].to(self.dtype), sin[0].to(self.dtype)

    def _positions(self, input_ids: Tensor, count: Tensor, total: Tensor) -> Tensor:
        # GroupQueryAttention's own rule: a call without past tokens is a first prompt and starts at 0 in every
        # sequence, whatever its length; any other call starts where the sequence's cache ends.
        B, S = input_ids.shape
        new = node("Shape", [input_ids], torch.int64, [1], start=1, end=2)
        prompt = node("Equal", [new, total], torch.bool, [1])
        start = node("Where", [prompt, ints(0), node("Sub", [count, new], torch.int64, [B])], torch.int64, [B])
        end = node("Squeeze", [new], torch.int64, [])
        steps = node("Range", [scalar(0), end, scalar(1)], torch.int64, [S])
        return node("Add", [node("Unsqueeze", [start, ints(1)], torch.int64, [B, 1]), steps], torch.int64, [B, S])

    def _rotated(self, x: Tensor, plan: OrtPlan, heads: int) -> Tensor:
        if plan.positions is None:
            return rotary_embedding(x, plan.cos, plan.sin, heads)
        inputs = [x, plan.positions, plan.cos, plan.sin]
        return node("com.microsoft::RotaryEmbedding", inputs, x.dtype, x.shape, num_heads=heads)

    def attention(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        past: KeyValue | None,
        plan: OrtPlan,
        heads: Heads,
        window: int | None,
        rotate: bool,
    ) -> tuple[Tensor, KeyValue]:
        inside = rotate and self.rotates_inside
        if rotate and not inside:
            query = self._rotated(query, plan, heads.query)
            key = self._rotated(key, plan, heads.key_value)
        past_key, past_value = past if past is not None else (None, None)
        B, S = query.shape[:2]
        total = S + past_key.shape[2] if past_key is not None else S
        cache = [B, heads.key_value, total, heads.dim]
        tables = [plan.cos, plan.sin] if inside else []
        # The present outputs are declared even without a cache: without them the CPU kernel falls back to a path that
        # holds a score for every pair of tokens.
        output, present_key, present_value = nodes(
            "com.microsoft::GroupQueryAttention",
            [query, key, value, past_key, past_value, plan.seqlens_k, plan.total, *tables],
            [query.dtype] * 3,
            [query.shape, cache, cache],
            num_heads=heads.query,
            kv_num_heads=heads.key_value,
            do_rotary=int(inside),
            local_window_size=-1 if window is None else window,
        )
        return output, (present_key, present_value)

    def experts(
        self, x: Tensor, router_logits: Tensor, mlps: Sequence[nn.Module], plan: OrtPlan, top_k: int, normalize: bool
    ) -> Tensor:
        write = fused_experts if self.fuses_experts else separate_experts
        return write(x, router_logits, mlps, top_k, normalize)

    def unembed(self, hidden: Tensor, weight: Tensor) -> Tensor:
        # The weight as it is stored, [V, D], so that one copy serves as the embedding too.
        B, S, _ = hidden.shape
        return node("com.microsoft::FusedMatMul", [hidden, weight], hidden.dtype, [B, S, weight.shape[0]], transB=1)


class OrtEncoderOps(StandardOps):
    """Lowering of an encoder, whose tokens attend to the whole sequence, which GroupQueryAttention cannot express.

    Attention is that of ai.onnx, with the mask of the reference, so that padding may be anywhere. The norms are
    ONNX Runtime's, by which they are fused with the residual sums.
    """

    opset = 23
    ir_version = 11
    norm = "SimplifiedLayerNormalization"


def _last_tokens(input_ids: Tensor, attention_mask: Tensor, total: Tensor) -> tuple[Tensor, Tensor]:
    """Write the index of each sequence's last token and its number of tokens, int64 [B]; ``total`` is T.

    The number of ones minus the index of the last one is 1 where a row is ones and then zeros, and smaller in every
    other row. The indices are split into one part of the sum of those differences, which fails unless it is B. Where
    one token is new, only the first column is checked: the rows of a decode step may have a gap where their prompt was
    padded, as those of onnxruntime-genai have, since GroupQueryAttention counts the ones and puts the new token over
    the padding. A row that starts with padding, or that has no token, fails there too.

    Every execution provider reads the sizes of Split on the host (ONNX Runtime: ``SplitBase::PrepareForCompute``, and
    ``SplitKernel::PrepareForComputeLocal`` for CUDA), whereas GroupQueryAttention on CUDA reads ``seqlens_k`` on the
    device, unchecked. A Reshape would do too, but onnxscript's optimizer believes the shapes that torch traced, and
    removes it.
    """
    B, T = attention_mask.shape
    ones = node("Clip", [attention_mask, scalar(0), scalar(1)], torch.int64, [B, T])
    count = node("ReduceSum", [ones, ints(1)], torch.int64, [B], keepdims=0)
    new = node("Shape", [input_ids], torch.int64, [1], start=1, end=2)
    # No number here exceeds 32 bits: OpenVINO and WebGPU compute int64 in 32.
    one = node("Equal", [new, ints(1)], torch.bool, [1])
    end = node("Where", [one, ints(1), total], torch.int64, [1])
    checked = node("Slice", [ones, ints(0), end, ints(1)], torch.int64, [B, T])  # one column, or all of them
    first = node("ReduceSum", [checked, ints(1)], torch.int64, [B], keepdims=0)
    last = node("ArgMax", [checked], torch.int64, [B], axis=1, keepdims=0, select_last_index=1)
    right = node("Sub", [first, last], torch.int64, [B])
    size = node("ReduceSum", [right, ints(0)], torch.int64, [1], keepdims=1)
    index = node("Sub", [count, ints(1)], torch.int64, [B])
    return node("Split", [index, size], torch.int64, [B], name=MASK_CHECK, axis=0), count


def _int32(x: Tensor) -> Tensor:
    return node("Cast", [x], torch.int32, x.shape, to=6)


def rotates_inside(config: ModelConfig) -> bool:
    """Return true if GroupQueryAttention can rotate: from tables by position, and with a head_dim that 16 divides."""
    return not config.rope.length_dependent and config.head_dim % 16 == 0


def refuse_inexpressible(config: ModelConfig) -> None:
    """Check that GroupQueryAttention's kernels can take the model.

    Raises:
        UnsupportedError: a kernel does not support the model; the message says what to do.
    """
    if config.head_dim % 8:
        raise UnsupportedError(
            f"head_dim is {config.head_dim}; ONNX Runtime's GroupQueryAttention takes multiples of 8 only: "
            "export with --target standard"
        )
