"""Qwen2-MoE (Yang et al., 2024): Qwen2 whose MLPs are mixtures of experts, with one more expert for every token.

The weights of a token's experts are those of a softmax over all of them, and need not add up to 1. The shared expert's
output is scaled by a sigmoid. Some layers may have the MLP of Qwen2 instead.
"""

from typing import Any

import torch
from torch import Tensor, nn

from . import ops
from .config import ConfigReader, Experts, ModelConfig
from .layers import MLP, Decoder, RMSNorm, Switch
from .ops import KeyValue
from .qwen2 import Attention

KEYS = frozenset(
    """use_sliding_window max_window_layers qkv_bias num_experts num_experts_per_tok moe_intermediate_size
    shared_expert_intermediate_size norm_topk_prob decoder_sparse_step mlp_only_layers router_aux_loss_coef
    output_router_logits""".split()
)
NEUTRAL = {"use_qk_norm": (False,), "qk_layernorm": (False,)}

DEFAULTS = {
    "vocab_size": 151936,
    "hidden_size": 2048,
    "intermediate_size": 5632,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
}
"""What ``Qwen2MoeConfig()`` has where a ``config.json`` must have a value; ``parse`` has the other defaults."""


def parse(reader: ConfigReader) -> ModelConfig:
    """Read a Qwen2-MoE ``config.json``.

    Where ``use_sliding_window`` is set, every other layer before ``max_window_layers`` slides, beginning with the
    first, unless ``layer_types`` lists the layers one by one.
    """
    reader.refuse_unknown(KEYS, NEUTRAL)
    common = reader.common(eps=1e-6, max_positions=32768, kv_heads=None)
    layers = common["num_hidden_layers"]
    sliding = _sliding_layers(reader, layers)
    if any(sliding) and reader.explicit("sliding_window", 4096) is None:
        raise reader.bad("sliding_window", "the window of the layers that slide, a whole number")
    return ModelConfig(
        family="qwen2_moe",
        layer_windows=reader.windows(sliding),
        layer_rotary=(True,) * layers,
        attention_bias=reader.boolean("qkv_bias", True),
        experts=_experts(reader, layers),
        **common,
    )


def _sliding_layers(reader: ConfigReader, layers: int) -> tuple[bool, ...]:
    listed = reader.layer_types(layers)
    if not reader.boolean("use_sliding_window", False):
        if any(listed or ()):
            raise reader.bad("layer_types", "full_attention throughout, since use_sliding_window is not true")
        return (False,) * layers
    last = reader.integer("max_window_layers", 28, least=0)
    return listed or tuple(i % 2 == 0 and i < last for i in range(layers))


def _experts(reader: ConfigReader, layers: int) -> Experts | None:
    """Return the mixtures; None where no layer has one."""
    count = reader.integer("num_experts", 60, least=0)
    step = reader.integer("decoder_sparse_step", 1)
    dense = reader.get("mlp_only_layers", [])
    if not isinstance(dense, list) or not all(isinstance(i, int) and not isinstance(i, bool) for i in dense):
        raise reader.bad("mlp_only_layers", "a list of layers' indices")
    mixes = tuple(count > 0 and i not in dense and (i + 1) % step == 0 for i in range(layers))
    if not any(mixes):
        return None
    per_token = reader.integer("num_experts_per_tok", 4)
    if per_token > count:
        raise reader.bad("num_experts_per_tok", f"at most num_experts ({count})")
    return Experts(
        count=count,
        per_token=per_token,
        size=reader.integer("moe_intermediate_size", 1408),
        shared_size=reader.integer("shared_expert_intermediate_size", 5632),
        normalized=reader.boolean("norm_topk_prob", False),
        layers=mixes,
        loss_factor=_loss_factor(reader),
        output_router_logits=reader.boolean("output_router_logits", False),
    )


def _loss_factor(reader: ConfigReader) -> float:
    return 0.0 if reader.get("router_aux_loss_coef") == 0 else reader.number("router_aux_loss_coef", 0.001)


class Mixture(nn.Module):
    """The experts of a layer, the router that chooses among them, and the shared expert; x [B, S, D]."""

    def __init__(self, config: ModelConfig, experts: Experts) -> None:
        super().__init__()
        self.top_k, self.normalized = experts.per_token, experts.normalized
        self.gate = Switch(config.hidden_size, experts.count)
        self.experts = nn.ModuleList(MLP(config, experts.size) for _ in range(experts.count))
        self.shared_expert = MLP(config, experts.shared_size)
        self.shared_expert_gate = Switch(config.hidden_size, 1)

    def forward(self, x: Tensor, plan: Any) -> Tensor:
        mlps = tuple(self.experts)
        routed = ops.experts(x, self.gate(x), mlps, plan, top_k=self.top_k, normalize=self.normalized)
        shared: Tensor = torch.sigmoid(self.shared_expert_gate(x)) * self.shared_expert(x)
        return routed + shared


class DecoderLayer(nn.Module):
    def __init__(self, config: ModelConfig, index: int) -> None:
        super().__init__()
        experts = config.experts
        self.self_attn = Attention(config, index)
        self.mlp = Mixture(config, experts) if experts is not None and experts.layers[index] else MLP(config)
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, hidden: Tensor, past: KeyValue | None, plan: Any) -> tuple[Tensor, KeyValue]:
        attended, present = self.self_attn(self.input_layernorm(hidden), past, plan)
        hidden = hidden + attended
        normed = self.post_attention_layernorm(hidden)
        added = self.mlp(normed, plan) if isinstance(self.mlp, Mixture) else self.mlp(normed)
        return hidden + added, present


class Qwen2MoeModel(Decoder):
    layer = DecoderLayer
