"""Qwen2 (Yang et al., 2024): norm before attention and MLP, biases on q, k and v, RoPE in every layer."""

from typing import Any

from torch import Tensor, nn

from . import ops
from .config import ConfigReader, ModelConfig
from .layers import MLP, Decoder, RMSNorm
from .ops import Heads, KeyValue

KEYS = frozenset({"use_sliding_window", "max_window_layers"})


def parse(reader: ConfigReader) -> ModelConfig:
    """Read a Qwen2 ``config.json``.

    The layers from ``max_window_layers`` on slide where ``use_sliding_window`` is set, unless ``layer_types`` lists
    the layers one by one.
    """
    reader.refuse_unknown(KEYS)
    common = reader.common(eps=1e-6, max_positions=32768, kv_heads=None)
    layers = common["num_hidden_layers"]
    sliding = (False,) * layers
    if reader.boolean("use_sliding_window", False) and reader.explicit("sliding_window", 4096) is not None:
        first = reader.integer("max_window_layers", 28, least=0)
        sliding = reader.layer_types(layers) or tuple(i >= first for i in range(layers))
    elif any(reader.layer_types(layers) or ()):
        raise reader.bad("layer_types", "full_attention throughout, since no sliding window is in use")
    return ModelConfig(family="qwen2", layer_windows=reader.windows(sliding), layer_rotary=(True,) * layers, **common)


class Attention(nn.Module):
    def __init__(self, config: ModelConfig, index: int) -> None:
        super().__init__()
        self.heads = Heads(config.num_attention_heads, config.num_key_value_heads, config.head_dim)
        self.window = config.layer_windows[index]
        query, key_value = self.heads.query * self.heads.dim, self.heads.key_value * self.heads.dim
        self.q_proj = nn.Linear(config.hidden_size, query)
        self.k_proj = nn.Linear(config.hidden_size, key_value)
        self.v_proj = nn.Linear(config.hidden_size, key_value)
        self.o_proj = nn.Linear(query, config.hidden_size, bias=False)

    def forward(self, x: Tensor, past: KeyValue | None, plan: Any) -> tuple[Tensor, KeyValue]:
        query, key, value = self.q_proj(x), self.k_proj(x), self.v_proj(x)
        output, present = ops.attention(query, key, value, past, plan, self.heads, window=self.window, rotate=True)
        return self.o_proj(output), present


class DecoderLayer(nn.Module):
    def __init__(self, config: ModelConfig, index: int) -> None:
        super().__init__()
        self.self_attn = Attention(config, index)
        self.mlp = MLP(config)
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, hidden: Tensor, past: KeyValue | None, plan: Any) -> tuple[Tensor, KeyValue]:
        attended, present = self.self_attn(self.input_layernorm(hidden), past, plan)
        hidden = hidden + attended
        return hidden + self.mlp(self.post_attention_layernorm(hidden)), present


class Qwen2Model(Decoder):
    layer = DecoderLayer
