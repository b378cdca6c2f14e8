"""The configurations in which the native definitions are compared with transformers.

Windows are 6 tokens wide and scaled RoPE types have an original length of 16, so that one list of sequence lengths
(see ``drive.py``) is below, at and above both.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from intaglio.tests.tiny import ABSENT

WINDOW = 6
ORIGINAL = 16
S, F = "sliding_attention", "full_attention"


@dataclass(frozen=True)
class Variant:
    """One configuration.

    ``changes``, ``spelling`` and ``rope`` go to ``tiny.config``. ``theirs`` replaces values of the file for
    transformers, where it cannot read a documented spelling.
    """

    name: str
    family: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    spelling: str = "5"
    rope: Mapping[str, Any] | None = None
    theirs: Mapping[str, Any] | None = None

    def __str__(self) -> str:
        return f"{self.family}-{self.name}"

    @property
    def length_dependent(self) -> bool:
        """Return true if transformers makes a sequence depend on the longest one of its batch."""
        return self.rope is not None and self.rope["rope_type"] in ("dynamic", "longrope")


GLOBAL: dict[str, Any] = {"sliding_window": None, "sliding_window_pattern": None, "layer_types": [F] * 4}
"""EXAONE 4.0 without windows, RoPE in every layer, as its 1.2B has it."""

FACTORS = {
    "short_factor": [1.0, 1.05, 1.1, 1.2, 1.4, 1.8, 2.2, 3.0],
    "long_factor": [1.0, 1.3, 1.9, 2.8, 4.0, 6.0, 9.0, 12.0],
}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": ORIGINAL}
LONGROPE = {"rope_type": "longrope", "original_max_position_embeddings": ORIGINAL, **FACTORS}

# name, rope parameters, other config values, spelling
ROPES: list[tuple[str, dict[str, Any], dict[str, Any], str]] = [
    ("theta", {"rope_type": "default", "rope_theta": 500.0}, {}, "5"),
    ("theta-v4", {"rope_type": "default", "rope_theta": 1_000_000.0}, {}, "4"),
    ("linear", {"rope_type": "linear", "factor": 2.5}, {}, "5"),
    ("linear-v4", {"rope_type": "linear", "factor": 4.0, "rope_theta": 5000.0}, {}, "4-type"),
    ("dynamic", {"rope_type": "dynamic", "factor": 3.0}, {"max_position_embeddings": ORIGINAL}, "5"),
    ("dynamic-v4", {"rope_type": "dynamic", "factor": 1.3}, {"max_position_embeddings": ORIGINAL}, "4-type"),
    ("yarn", YARN, {}, "5"),
    ("yarn-v4", YARN | {"factor": 2.0, "rope_theta": 300.0}, {"max_position_embeddings": 32}, "4-type"),
    (
        "yarn-attention",
        YARN | {"attention_factor": 0.8, "beta_fast": 1.0, "beta_slow": 0.1, "truncate": False},
        {},
        "5",
    ),
    ("yarn-mscale", YARN | {"mscale": 0.7, "mscale_all_dim": 1.3, "truncate": False, "rope_theta": 50.0}, {}, "4"),
    ("yarn-outer", {"rope_type": "yarn", "factor": 4.0}, {"original_max_position_embeddings": ORIGINAL}, "5"),
    ("longrope", LONGROPE, {"max_position_embeddings": 64}, "5"),
    ("longrope-v4", LONGROPE | {"factor": 2.0}, {}, "4-type"),
    ("longrope-attention", LONGROPE | {"attention_factor": 1.7}, {}, "5"),
    ("llama3", LLAMA3 | {"original_max_position_embeddings": 64}, {}, "5"),
    ("llama3-v4", LLAMA3 | {"original_max_position_embeddings": ORIGINAL, "rope_theta": 500.0}, {}, "4"),
]


def _ropes(family: str, base: Mapping[str, Any]) -> list[Variant]:
    return [
        Variant(f"rope-{name}", family, {**base, **changes}, spelling, rope) for name, rope, changes, spelling in ROPES
    ]


def _geometry(family: str) -> list[Variant]:
    return [
        Variant("plain", family),
        Variant("v4", family, spelling="4"),
        Variant("mha", family, {"num_key_value_heads": 4}),
        Variant("mha-absent", family, {"num_key_value_heads": ABSENT}, theirs={"num_key_value_heads": 4}),
        Variant("mqa", family, {"num_key_value_heads": 1}),
        Variant("head-dim-32", family, {"head_dim": 32}),
        Variant("head-dim-10", family, {"head_dim": 10, "num_attention_heads": 6, "num_key_value_heads": 3}),
        Variant("tied", family, {"tie_word_embeddings": True}),
        Variant("tied-v4", family, {"tie_word_embeddings": True, "num_key_value_heads": 1}, spelling="4"),
        Variant("eps", family, {"rms_norm_eps": 1e-3}),
        Variant("one-layer", family, {"num_hidden_layers": 1, "layer_types": [F]}),
    ]


QWEN2_WINDOWS = [
    Variant("max-window-layers", "qwen2", {"use_sliding_window": True}),
    Variant("all-slide-v4", "qwen2", {"use_sliding_window": True, "max_window_layers": 0}, spelling="4"),
    Variant("none-slide", "qwen2", {"use_sliding_window": True, "max_window_layers": 4}),
    Variant("layer-types", "qwen2", {"use_sliding_window": True, "layer_types": [S, F, F, S]}),
    Variant("window-2", "qwen2", {"use_sliding_window": True, "sliding_window": 2, "max_window_layers": 1}),
    Variant("window-null", "qwen2", {"use_sliding_window": True, "sliding_window": None, "max_window_layers": 0}),
    Variant("window-unused", "qwen2", {"use_sliding_window": False, "max_window_layers": 0}),
    Variant(
        "window-yarn", "qwen2", {"use_sliding_window": True, "max_window_layers": 1}, rope=YARN | {"rope_theta": 80.0}
    ),
]


def _pattern(name: str, pattern: object, layers: str, *, theirs: bool = False) -> Variant:
    types = [S if letter == "L" else F for letter in layers]
    changes = {"sliding_window_pattern": pattern, "layer_types": ABSENT, "num_hidden_layers": len(layers)}
    return Variant(
        name, "exaone4", changes, theirs={"sliding_window_pattern": 4, "layer_types": types} if theirs else None
    )


EXAONE4_WINDOWS = [
    _pattern("pattern-4", 4, "LLLGL"),
    _pattern("pattern-2", 2, "LGLGL"),  # for an int, in transformers the last layer slides like any other
    _pattern("pattern-1", 1, "GGG"),
    _pattern("pattern-absent", ABSENT, "LLLGLL"),
    _pattern("pattern-LLLG", "LLLG", "LLLGLG", theirs=True),
    _pattern("pattern-LG", "LG", "LGLGG", theirs=True),
    _pattern("pattern-GL", "GL", "GLGG", theirs=True),
    _pattern("pattern-L", "L", "LLG", theirs=True),
    _pattern("pattern-null", None, "GGG", theirs=True),
    Variant("layer-types", "exaone4", {"layer_types": [F, S, S, F], "sliding_window_pattern": "LLLG"}),
    Variant("layer-types-v4", "exaone4", {"layer_types": [S, F, S, S]}, spelling="4"),
    Variant("window-2", "exaone4", {"sliding_window": 2}),
    Variant("global", "exaone4", GLOBAL),
    Variant(
        "global-LLLG",
        "exaone4",
        {"sliding_window": None, "sliding_window_pattern": "LLLG", "layer_types": ABSENT},
        theirs=GLOBAL,
    ),
    Variant("global-null", "exaone4", GLOBAL | {"layer_types": ABSENT}, spelling="4", theirs=GLOBAL),
    Variant("hybrid-llama3", "exaone4", rope=LLAMA3 | {"original_max_position_embeddings": ORIGINAL}),
    Variant("hybrid-dynamic", "exaone4", {"max_position_embeddings": ORIGINAL}, rope=dict(ROPES[4][1])),
    Variant("hybrid-longrope", "exaone4", {"num_key_value_heads": 4}, rope=LONGROPE | {"factor": 2.0}),
]

# Attention is Qwen2's: of its variants, only those that this family reads by itself.
QWEN2_MOE = [
    Variant("plain", "qwen2_moe"),
    Variant("v4", "qwen2_moe", {"mlp_only_layers": []}, spelling="4"),
    Variant("all-mix", "qwen2_moe", {"mlp_only_layers": None}),
    Variant("mqa-tied", "qwen2_moe", {"num_key_value_heads": 1, "tie_word_embeddings": True}),
    Variant("no-bias", "qwen2_moe", {"qkv_bias": False}),
    Variant("normalized", "qwen2_moe", {"norm_topk_prob": True, "num_experts_per_tok": 3}),
    Variant("top-1", "qwen2_moe", {"num_experts_per_tok": 1, "norm_topk_prob": True}),
    Variant("every-expert", "qwen2_moe", {"num_experts_per_tok": 6, "mlp_only_layers": [0, 2]}),
    Variant("sparse-step", "qwen2_moe", {"decoder_sparse_step": 2, "mlp_only_layers": []}),
    Variant("step-and-list", "qwen2_moe", {"decoder_sparse_step": 2, "mlp_only_layers": [3, 9]}),
    Variant("no-experts", "qwen2_moe", {"num_experts": 0}),
    Variant("gelu", "qwen2_moe", {"hidden_act": "gelu"}),
    Variant("max-window-layers", "qwen2_moe", {"use_sliding_window": True, "max_window_layers": 4}),
    Variant("one-slides", "qwen2_moe", {"use_sliding_window": True, "max_window_layers": 2}, spelling="4"),
    Variant("none-slide", "qwen2_moe", {"use_sliding_window": True, "max_window_layers": 0}),
    Variant("layer-types", "qwen2_moe", {"use_sliding_window": True, "layer_types": [F, S, S, F]}),
    Variant("window-unused", "qwen2_moe", {"sliding_window": 0, "max_window_layers": 4}),
    Variant("rope-yarn", "qwen2_moe", rope=YARN | {"rope_theta": 80.0}),
    Variant("rope-dynamic", "qwen2_moe", {"max_position_embeddings": ORIGINAL}, rope=dict(ROPES[4][1])),
]

VARIANTS = [
    *_geometry("qwen2"),
    *QWEN2_WINDOWS,
    *_ropes("qwen2", {}),
    *_geometry("exaone4"),
    *EXAONE4_WINDOWS,
    *_ropes("exaone4", GLOBAL),
    *QWEN2_MOE,
]
BY_NAME = {str(variant): variant for variant in VARIANTS}

# The heads sit on the same trunk: for them, the variants that change which tokens are seen and how the file is read.
HEAD_VARIANTS = [
    BY_NAME[name]
    for name in (
        "qwen2-plain",
        "qwen2-v4",
        "qwen2-mqa",
        "qwen2-tied",
        "qwen2-max-window-layers",
        "qwen2-rope-yarn",
        "qwen2-rope-dynamic",
        "exaone4-plain",
        "exaone4-v4",
        "exaone4-mha",
        "exaone4-tied",
        "exaone4-global",
        "exaone4-pattern-LLLG",
        "exaone4-rope-llama3",
        "exaone4-hybrid-longrope",
        "qwen2_moe-plain",
        "qwen2_moe-max-window-layers",
    )
]
