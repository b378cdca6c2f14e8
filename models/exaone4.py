"""EXAONE 4.0 (LG AI Research, 2025): norm after attention and MLP, RMSNorm on each head's query and key.

The hybrid models mix sliding-window layers, which rotate, with global layers, which do not (NoPE). Where
``sliding_window`` is null, every layer is global and rotates.
"""

from typing import Any

from torch import Tensor, nn

from . import ops
from .config import ConfigReader, ModelConfig
from .layers import MLP, Decoder, HeadNorm, RMSNorm
from .ops import Heads, KeyValue

# max_window_layers is left over from other families: the windows follow from the layers' types or the pattern.
KEYS = frozenset({"sliding_window_pattern", "max_window_layers"})
NEUTRAL = {
    "attention_bias": (False,),
    "use_qk_norm": (True,),
    "qk_layernorm": (True,),
    "reorder_qk_norm": (True,),  # norms after attention and MLP, and on queries and keys, as the family has them
}

DEFAULTS = {
    "vocab_size": 102400,
    "hidden_size": 4096,
    "intermediate_size": 16384,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
}
"""What ``Exaone4Config()`` has where a ``config.json`` must have a value; ``parse`` has the other defaults."""


def parse(reader: ConfigReader) -> ModelConfig:
    """Read an EXAONE 4.0 ``config.json``."""
    reader.refuse_unknown(KEYS, NEUTRAL)
    common = reader.common(eps=1e-5, max_positions=2048, kv_heads=None)
    layers = common["num_hidden_layers"]
    sliding = _sliding_layers(reader, layers)
    hybrid = reader.explicit("sliding_window", 4096) is not None
    return ModelConfig(
        family="exaone4",
        layer_windows=reader.windows(sliding),
        layer_rotary=tuple(slides or not hybrid for slides in sliding),
        **common,
    )


def _sliding_layers(reader: ConfigReader, layers: int) -> tuple[bool, ...]:
    """Return one flag per layer, true where attention slides: ``layer_types``, else ``sliding_window_pattern``.

    An int n makes every n-th layer global (as transformers 5 does, the last layer included). A string of L and G is
    repeated over the layers, the last one always global (as its documentation has it). Null slides nowhere.
    """
    listed = reader.layer_types(layers)
    if reader.explicit("sliding_window", 4096) is None:
        if listed and any(listed):
            raise reader.bad("layer_types", "full_attention throughout, since sliding_window is null")
        return (False,) * layers
    if listed is not None:
        return listed
    match pattern := reader.explicit("sliding_window_pattern", 4):
        case None | 0:
            return (False,) * layers
        case str() if pattern and set(pattern) <= {"L", "G"}:
            return tuple(i != layers - 1 and pattern[i % len(pattern)] == "L" for i in range(layers))
        case int() if pattern > 0 and not isinstance(pattern, bool):
            return tuple((i + 1) % pattern != 0 for i in range(layers))
    raise reader.bad("sliding_window_pattern", "a whole number, a string of L and G, or null")


class Attention(nn.Module):
    def __init__(self, config: ModelConfig, index: int) -> None:
        super().__init__()
        self.heads = Heads(config.num_attention_heads, config.num_key_value_heads, config.head_dim)
        self.window = config.layer_windows[index]
        self.rotate = config.layer_rotary[index]
        query, key_value = self.heads.query * self.heads.dim, self.heads.key_value * self.heads.dim
        self.q_proj = nn.Linear(config.hidden_size, query, bias=False)
        self.k_proj = nn.Linear(config.hidden_size, key_value, bias=False)
        self.v_proj = nn.Linear(config.hidden_size, key_value, bias=False)
        self.o_proj = nn.Linear(query, config.hidden_size, bias=False)
        self.q_norm = HeadNorm(self.heads.dim, config.rms_norm_eps, self.heads.query)
        self.k_norm = HeadNorm(self.heads.dim, config.rms_norm_eps, self.heads.key_value)

    def forward(self, x: Tensor, past: KeyValue | None, plan: Any) -> tuple[Tensor, KeyValue]:
        query, key, value = self.q_norm(self.q_proj(x)), self.k_norm(self.k_proj(x)), self.v_proj(x)
        output, present = ops.attention(
            query, key, value, past, plan, self.heads, window=self.window, rotate=self.rotate
        )
        return self.o_proj(output), present


class DecoderLayer(nn.Module):
    def __init__(self, config: ModelConfig, index: int) -> None:
        super().__init__()
        self.self_attn = Attention(config, index)
        self.mlp = MLP(config)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_feedforward_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, hidden: Tensor, past: KeyValue | None, plan: Any) -> tuple[Tensor, KeyValue]:
        attended, present = self.self_attn(hidden, past, plan)
        hidden = hidden + self.post_attention_layernorm(attended)
        return hidden + self.post_feedforward_layernorm(self.mlp(hidden)), present


class Exaone4Model(Decoder):
    layer = DecoderLayer
