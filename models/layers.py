"""The modules that the families share: the norms, the gated MLP, and the decoder around the layers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from . import ops
from .activations import ACTIVATIONS
from .config import ModelConfig
from .ops import KeyValue
from .rope import RotaryEmbedding


class RMSNorm(nn.Module):
    """Root-mean-square norm over the last dimension."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return ops.rms_norm(x, self.weight, self.eps)


class HeadNorm(RMSNorm):
    """The same norm over each head: x [B, S, heads*E], weight [E]."""

    def __init__(self, size: int, eps: float, heads: int) -> None:
        super().__init__(size, eps)
        self.heads = heads

    def forward(self, x: Tensor) -> Tensor:
        return ops.head_norm(x, self.weight, self.eps, self.heads)


class MLP(nn.Module):
    """down(act(gate(x)) * up(x)), with silu the SwiGLU of Shazeer (2020); x [B, S, D]."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)
        self.act = ACTIVATIONS[config.hidden_act]

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.down_proj(self.act(self.gate_proj(x)) * self.up_proj(x))
        return output


@dataclass(frozen=True)
class DecoderOutput:
    """``last_hidden_state`` [B, S, D] after the final norm; the new past, one pair [B, K, T, E] per layer; and, on
    request, the embeddings and each layer's output as transformers gives them (the last one after the final norm)."""

    last_hidden_state: Tensor
    past_key_values: tuple[KeyValue, ...]
    hidden_states: tuple[Tensor, ...] | None = None


class Decoder(nn.Module):
    """Embedding, layers, final norm. A family gives the layer, called as ``layer(hidden, past, plan)``."""

    layer: type[nn.Module]

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(self.layer(config, index) for index in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.rotary_emb = RotaryEmbedding(config.rope, config.head_dim)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        past_key_values: Sequence[KeyValue] | None = None,
        *,
        hidden_states: bool = False,
    ) -> DecoderOutput:
        """Run the new tokens after the past.

        Args:
            input_ids: int64 [B, S].
            attention_mask: [B, T], T = past + S, nonzero where there is a token (padding on either side); None: all.
            past_key_values: one pair [B, K, P, E] per layer, or None.
            hidden_states: also return the embeddings and every layer's output.
        """
        past_length = past_key_values[0][0].shape[2] if past_key_values is not None else 0
        plan: Any = ops.plan(input_ids, attention_mask, past_length, self.rotary_emb, causal=self.config.causal)
        hidden = self.embed_tokens(input_ids)
        states, present = [hidden], []
        for index, layer in enumerate(self.layers):
            hidden, key_value = layer(hidden, past_key_values[index] if past_key_values is not None else None, plan)
            present.append(key_value)
            states.append(hidden)
        hidden = states[-1] = self.norm(hidden)
        return DecoderOutput(hidden, tuple(present), tuple(states) if hidden_states else None)
