"""A made-up third family, Burin, defined as ``models/<family>.py`` defines one.

Norms stand before attention and MLP, as in Qwen2; the projections have no bias, and queries and keys are normalized per
head, as in EXAONE 4.0. Every other layer, beginning with the first, slides.
"""

from dataclasses import replace
from typing import Any

from intaglio.models import ops
from intaglio.models.config import ConfigReader, ModelConfig
from intaglio.models.family import Family
from intaglio.models.layers import MLP, Decoder, HeadNorm, RMSNorm
from intaglio.models.ops import Heads, KeyValue
from torch import Tensor, nn

KEYS = frozenset({"slides"})


def parse(reader: ConfigReader) -> ModelConfig:
    """Read a Burin ``config.json``."""
    reader.refuse_unknown(KEYS)
    common = reader.common(eps=1e-6, max_positions=1024, kv_heads=None)
    layers = common["num_hidden_layers"]
    slides = reader.boolean("slides", False)
    windows = reader.windows(tuple(slides and index % 2 == 0 for index in range(layers)))
    return ModelConfig(family="burin", layer_windows=windows, layer_rotary=(True,) * layers, **common)


class Attention(nn.Module):
    """Grouped-query attention with a norm on each head's query and key."""

    def __init__(self, config: ModelConfig, index: int) -> None:
        super().__init__()
        self.heads = Heads(config.num_attention_heads, config.num_key_value_heads, config.head_dim)
        self.window = config.layer_windows[index]
        query, key_value = self.heads.query * self.heads.dim, self.heads.key_value * self.heads.dim
        self.q_proj = nn.Linear(config.hidden_size, query, bias=False)
        self.k_proj = nn.Linear(config.hidden_size, key_value, bias=False)
        self.v_proj = nn.Linear(config.hidden_size, key_value, bias=False)
        self.o_proj = nn.Linear(query, config.hidden_size, bias=False)
        self.q_norm = HeadNorm(self.heads.dim, config.rms_norm_eps, self.heads.query)
        self.k_norm = HeadNorm(self.heads.dim, config.rms_norm_eps, self.heads.key_value)

    def forward(self, x: Tensor, past: KeyValue | None, plan: Any) -> tuple[Tensor, KeyValue]:
        query, key, value = self.q_norm(self.q_proj(x)), self.k_norm(self.k_proj(x)), self.v_proj(x)
        output, present = ops.attention(query, key, value, past, plan, self.heads, window=self.window, rotate=True)
        return self.o_proj(output), present


class DecoderLayer(nn.Module):
    """One layer."""

    def __init__(self, config: ModelConfig, index: int) -> None:
        super().__init__()
        self.self_attn = Attention(config, index)
        self.mlp = MLP(config)
        self.norm_1 = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.norm_2 = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, hidden: Tensor, past: KeyValue | None, plan: Any) -> tuple[Tensor, KeyValue]:
        attended, present = self.self_attn(self.norm_1(hidden), past, plan)
        hidden = hidden + attended
        return hidden + self.mlp(self.norm_2(hidden)), present


class BurinModel(Decoder):
    """The model without a head."""

    layer = DecoderLayer


FAMILY = Family(
    name="burin",
    title="Burin",
    class_prefix="Burin",
    parse=parse,
    trunk=BurinModel,
    norm_before_attention="norm_1",
    norm_before_mlp="norm_2",
    head_norms=True,
)


class BareLayer(DecoderLayer):
    """A layer whose MLP reads the residual stream itself."""

    def __init__(self, config: ModelConfig, index: int) -> None:
        super().__init__(config, index)
        del self.norm_2

    def forward(self, hidden: Tensor, past: KeyValue | None, plan: Any) -> tuple[Tensor, KeyValue]:
        attended, present = self.self_attn(self.norm_1(hidden), past, plan)
        hidden = hidden + attended
        return hidden + self.mlp(hidden), present


class BareBurinModel(Decoder):
    """The model without a head."""

    layer = BareLayer


BARE = replace(
    FAMILY,
    name="bare_burin",
    class_prefix="BareBurin",
    parse=lambda reader: replace(parse(reader), family="bare_burin"),
    trunk=BareBurinModel,
    norm_before_mlp=None,
)
"""A variant whose record leaves out a norm that its layers do not have."""
