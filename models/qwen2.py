"""Qwen2 (Yang et al., 2024): norm before attention and MLP, biases on q, k and v, RoPE in every layer.

The models for a million tokens have dual chunk attention, which equals plain attention up to a length; they are read
with that length as their context.
"""

from typing import Any

from torch import Tensor, nn

from ..errors import UnsupportedError
from ..files.json_fields import shown
from . import ops
from .config import ConfigReader, ModelConfig
from .layers import MLP, Decoder, RMSNorm
from .ops import Heads, KeyValue
from .rope import RopeConfig

KEYS = frozenset({"use_sliding_window", "max_window_layers", "attention_bias", "dual_chunk_attention_config"})
DUAL_CHUNK_KEYS = frozenset({"chunk_size", "local_size", "original_max_position_embeddings"})
NEUTRAL = {"use_qk_norm": (False,), "qk_layernorm": (False,), "qkv_bias": (True,)}

DEFAULTS = {
    "vocab_size": 151936,
    "hidden_size": 4096,
    "intermediate_size": 22016,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
}
"""What ``Qwen2Config()`` has where a ``config.json`` must have a value; ``parse`` has the other defaults."""


def parse(reader: ConfigReader) -> ModelConfig:
    """Read a Qwen2 ``config.json``.

    The layers from ``max_window_layers`` on slide where ``use_sliding_window`` is set, unless ``layer_types`` lists
    the layers one by one.
    """
    reader.refuse_unknown(KEYS, NEUTRAL)
    common = reader.common(eps=1e-6, max_positions=32768, kv_heads=None)
    layers = common["num_hidden_layers"]
    sliding = (False,) * layers
    if reader.boolean("use_sliding_window", False) and reader.explicit("sliding_window", 4096) is not None:
        first = reader.integer("max_window_layers", 28, least=0)
        sliding = reader.layer_types(layers) or tuple(i >= first for i in range(layers))
    elif any(reader.layer_types(layers) or ()):
        raise reader.bad("layer_types", "full_attention throughout, since no sliding window is in use")
    return ModelConfig(
        family="qwen2",
        layer_windows=reader.windows(sliding),
        layer_rotary=(True,) * layers,
        attention_bias=reader.boolean("attention_bias", True),
        dual_chunk_length=_dual_chunk_length(reader, common["rope"]),
        **common,
    )


def _dual_chunk_length(reader: ConfigReader, rope: RopeConfig) -> int | None:
    """Return the longest sequence for which dual chunk attention (An et al., 2024) equals plain attention.

    Keys are rotated by their position modulo c = chunk_size - local_size. A query in the second chunk is rotated by its
    own position, but by chunk_size at most, so that distances are right up to there; in a third chunk they are not.
    Beyond original_max_position_embeddings the scores are scaled too.

    Raises:
        UnsupportedError: a key is unknown, or RoPE is scaled as well.
        CheckpointError: a size is missing or wrong.
    """
    given = reader.get("dual_chunk_attention_config")
    if given is None:
        return None
    where = f"{reader.where}: dual_chunk_attention_config"
    if not isinstance(given, dict):
        raise reader.bad("dual_chunk_attention_config", "an object")
    unknown = [key for key in given if key not in DUAL_CHUNK_KEYS and given[key] is not None]
    if unknown:
        raise UnsupportedError(
            f"{where}: unknown key{'s' if len(unknown) > 1 else ''} {', '.join(map(shown, unknown))}: what they change "
            "is not known; remove them if they change nothing"
        )
    if rope.type != "default":
        raise UnsupportedError(
            f"{where}: RoPE of type {rope.type!r} together with dual chunk attention is not supported, since programs "
            "differ in which of the two they apply; remove the one that does not hold"
        )
    inner = ConfigReader(given, where)
    chunk, local = inner.integer("chunk_size"), inner.integer("local_size")
    if local >= chunk:
        raise inner.bad("local_size", f"a whole number below chunk_size ({chunk:,})")
    scaled_from = inner.integer("original_max_position_embeddings", 0, least=0)
    length = min(chunk, 2 * (chunk - local))
    return min(length, scaled_from) if scaled_from else length


class Attention(nn.Module):
    def __init__(self, config: ModelConfig, index: int) -> None:
        super().__init__()
        self.heads = Heads(config.num_attention_heads, config.num_key_value_heads, config.head_dim)
        self.window = config.layer_windows[index]
        query, key_value = self.heads.query * self.heads.dim, self.heads.key_value * self.heads.dim
        self.q_proj = nn.Linear(config.hidden_size, query, bias=config.attention_bias)
        self.k_proj = nn.Linear(config.hidden_size, key_value, bias=config.attention_bias)
        self.v_proj = nn.Linear(config.hidden_size, key_value, bias=config.attention_bias)
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
