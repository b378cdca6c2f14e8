"""The metadata of a GGUF file as the config.json of a checkpoint.

Keys: llama.cpp's llama-arch.cpp and gguf-py's constants.py. A key of the architecture that is in none of the tables may
change what the model computes, and is refused.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ...errors import CheckpointError, UnsupportedError
from ...files.json_fields import shown
from .experts import mixture_config
from .header import StoredTensor
from .names import EMBEDDING, HEAD
from .parts import Metadata
from .rope import SCALING, Floats, number, rope_parameters

ARCHITECTURE = "general.architecture"
TYPE = "general.type"
QUANTIZATION_VERSION = "general.quantization_version"
CLASSES: Mapping[str, str] = {"qwen2": "Qwen2", "exaone4": "Exaone4", "qwen2moe": "Qwen2Moe"}
"""The architectures that are read, with the beginning of their class names."""
MIXTURE = "qwen2moe"
MODEL_TYPES: Mapping[str, str] = {MIXTURE: "qwen2_moe"}
"""config.json's names of the architectures that have another one there."""

NONE, MEAN, CLS, LAST, RANK = range(5)
POOLINGS: Mapping[int, str] = {MEAN: "mean", CLS: "cls", LAST: "lasttoken"}
"""sentence-transformers' modes of pooling, by ``pooling_type``."""

READ = frozenset(
    """block_count context_length embedding_length feed_forward_length vocab_size attention.head_count
    attention.head_count_kv attention.layer_norm_rms_epsilon attention.key_length attention.value_length
    attention.causal attention.sliding_window attention.sliding_window_pattern pooling_type rope.dimension_count
    rope.freq_base rope.scale_linear""".split()
) | {
    SCALING + key
    for key in (
        "type factor original_context_length attn_factor yarn_attn_factor yarn_ext_factor yarn_beta_fast "
        "yarn_beta_slow".split()
    )
}
MIXTURE_READ = frozenset(
    "expert_count expert_used_count expert_feed_forward_length expert_shared_feed_forward_length".split()
)
"""Keys that an architecture with mixtures has besides."""
INERT = frozenset({"rope.scaling.finetuned", "tensor_data_layout"})
"""Without effect on these architectures."""
NEUTRAL: Mapping[str, tuple[object, ...]] = {
    "expert_count": (0,),
    "expert_used_count": (0,),
    "expert_gating_func": (1,),  # softmax
    "expert_weights_norm": (False,),
    "expert_weights_scale": (0.0, 1.0),
    "expert_group_count": (0, 1),
    "expert_group_used_count": (0, 1),
    "nextn_predict_layers": (0,),
    "leading_dense_block_count": (0,),
    "use_parallel_residual": (False,),
    "logit_scale": (0.0, 1.0),
    "attention.scale": (0.0,),
    "attention.clamp_kqv": (0.0,),
    "attention.max_alibi_bias": (0.0,),
    "attn_logit_softcapping": (0.0,),
    "final_logit_softcapping": (0.0,),
}
"""Keys that would change the mathematics: only the values that change nothing are accepted."""

HYBRID_LAYERS, HYBRID_WINDOW, HYBRID_PATTERN = 64, 4096, 4
"""llama.cpp takes an EXAONE 4.0 of 64 layers for the hybrid 32B, whatever the metadata says."""


def read_family(metadata: Metadata) -> str:
    """Return the architecture.

    Raises:
        UnsupportedError: the file is no model, or one of another architecture.
    """
    kind = metadata.text(TYPE)
    if kind not in (None, "model"):
        raise UnsupportedError(f"{metadata.where} is no model: {TYPE} is {shown(kind)}; give the file of the model")
    family = metadata.text(ARCHITECTURE)
    if family is None or family not in CLASSES:
        raise UnsupportedError(
            f"{metadata.where}: {ARCHITECTURE} is {shown(family)}, which is not supported; supported are "
            f"{', '.join(CLASSES)}"
        )
    if metadata.integer(QUANTIZATION_VERSION) not in (None, 2):
        raise UnsupportedError(
            f"{metadata.where}: {QUANTIZATION_VERSION} is {metadata.get(QUANTIZATION_VERSION)}, and version 2 is read; "
            "make the file again with a recent llama.cpp"
        )
    return family


def read_expert_count(metadata: Metadata, family: str) -> int | None:
    """Return the number of experts of a layer; None in an architecture without mixtures.

    Raises:
        CheckpointError: it is missing.
    """
    return _Architecture(metadata, family).needed("expert_count") if family == MIXTURE else None


def read_config(
    metadata: Metadata, family: str, tensors: Mapping[str, StoredTensor], factors: Floats | None
) -> dict[str, Any]:
    """Return the values of config.json.

    Args:
        tensors: by their names in the file.
        factors: of the tensor ``rope_freqs.weight``; None where there is none.

    Raises:
        CheckpointError: a value is missing, or contradicts another.
        UnsupportedError: a key may change what the model computes.
    """
    _check_keys(metadata, family)
    fields = _Architecture(metadata, family)
    heads, hidden = fields.needed("attention.head_count"), fields.needed("embedding_length")
    layers = fields.needed("block_count")
    head_dim = fields.integer("attention.key_length") or hidden // heads
    for key in ("attention.value_length", "rope.dimension_count"):
        if fields.integer(key) not in (None, head_dim):
            raise UnsupportedError(
                f"{metadata.where}: {family}.{key} is {fields.integer(key)}, and heads of {head_dim} are read whole; "
                "use another file"
            )
    rows = tensors[EMBEDDING].shape[0]
    if fields.integer("vocab_size") not in (None, rows):
        raise CheckpointError(
            f"{metadata.where}: {family}.vocab_size is {fields.integer('vocab_size'):,}, and {EMBEDDING} has {rows:,} "
            "rows; fetch the file again"
        )
    pooling = metadata.integer(f"{family}.pooling_type") or NONE
    config: dict[str, Any] = {
        "architectures": [CLASSES[family] + ("Model" if pooling in POOLINGS else "ForCausalLM")],
        "model_type": MODEL_TYPES.get(family, family),
        "vocab_size": rows,
        "hidden_size": hidden,
        "intermediate_size": fields.needed("feed_forward_length"),
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": fields.integer("attention.head_count_kv") or heads,
        "head_dim": head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": fields.needed("context_length"),
        "rms_norm_eps": number(metadata, f"{family}.attention.layer_norm_rms_epsilon"),
        "rope_parameters": rope_parameters(metadata, family, head_dim, factors),
        "tie_word_embeddings": HEAD not in tensors,
    }
    if config["rms_norm_eps"] is None:
        raise metadata.bad(f"{family}.attention.layer_norm_rms_epsilon", "a number")
    if pooling not in (NONE, *POOLINGS):
        raise UnsupportedError(
            f"{metadata.where}: {family}.pooling_type is {pooling}, that of a reranker, whose head is not read; use "
            "its checkpoint"
        )
    if (causal := metadata.boolean(f"{family}.attention.causal")) is not None:
        config["is_causal"] = causal
    config |= _windows(fields, layers) if family == "exaone4" else _no_windows(fields, config)
    if family == MIXTURE:
        sizes = {key: fields.integer(key) for key in (*MIXTURE_READ, "feed_forward_length")}
        config |= mixture_config(tensors, sizes | {"expert_used_count": fields.needed("expert_used_count")}, layers)
    for name in ("bos", "eos"):
        if (token := metadata.integer(f"tokenizer.ggml.{name}_token_id", least=0)) is not None:
            config[f"{name}_token_id"] = token
    pad = metadata.integer("tokenizer.ggml.padding_token_id", least=0)
    return config if pad is None else {**config, "pad_token_id": pad}


class _Architecture:
    """The keys of the architecture. One that has a value for each layer must have the same for all."""

    def __init__(self, metadata: Metadata, family: str) -> None:
        self.metadata = metadata
        self.family = family

    def integer(self, key: str) -> int | None:
        name = f"{self.family}.{key}"
        value = self.metadata.get(name)
        if not isinstance(value, np.ndarray):
            return self.metadata.integer(name, least=1)
        if value.size == 0 or value.dtype.kind not in "iu" or (value != value[0]).any() or value[0] < 1:
            raise UnsupportedError(
                f"{self.metadata.where}: {name} differs from layer to layer, which is not supported; use another file"
            )
        return int(value[0])

    def needed(self, key: str) -> int:
        value = self.integer(key)
        if value is None:
            raise self.metadata.bad(f"{self.family}.{key}", "a whole number")
        return value


def _windows(fields: _Architecture, layers: int) -> dict[str, Any]:
    """Return the windows of EXAONE 4.0: a flag per layer, or every n-th layer global."""
    key = "exaone4.attention.sliding_window_pattern"
    window, pattern = fields.integer("attention.sliding_window"), fields.metadata.get(key)
    if window is None and layers != HYBRID_LAYERS:
        return {"sliding_window": None}
    if isinstance(pattern, np.ndarray):
        if pattern.dtype.kind not in "biu" or len(pattern) != layers:
            raise fields.metadata.bad(key, f"an array of {layers} flags")
        sliding = [bool(flag) for flag in pattern]
    else:
        step = fields.metadata.integer(key, least=1)
        if step is None and layers == HYBRID_LAYERS:
            step = HYBRID_PATTERN
        if step is None:
            raise UnsupportedError(
                f"{fields.metadata.where}: exaone4.attention.sliding_window is {window}, and {key}, which says what "
                "layers slide, is missing; make the file again with a recent llama.cpp"
            )
        sliding = [(layer + 1) % step != 0 for layer in range(layers)]
    types = ["sliding_attention" if slides else "full_attention" for slides in sliding]
    return {"sliding_window": window or HYBRID_WINDOW, "layer_types": types}


def _no_windows(fields: _Architecture, config: Mapping[str, Any]) -> dict[str, Any]:
    """Check that a Qwen2 or Qwen2-MoE has no window that counts: llama.cpp computes none."""
    window = fields.integer("attention.sliding_window")
    if window is not None and window < config["max_position_embeddings"]:
        raise UnsupportedError(
            f"{fields.metadata.where}: {fields.family}.attention.sliding_window is {window}, which llama.cpp does not "
            "compute; use another file"
        )
    return {}


def _check_keys(metadata: Metadata, family: str) -> None:
    unknown = []
    for key, value in metadata.values.items():
        name = key.removeprefix(f"{family}.")
        if name == key or name in READ | INERT or (family == MIXTURE and name in MIXTURE_READ):
            continue
        if name not in NEUTRAL or isinstance(value, np.ndarray | list) or value not in NEUTRAL[name]:
            unknown.append(f"{key} = {shown(value)}")
    if unknown:
        raise UnsupportedError(
            f"{metadata.where}: metadata that may change what the model computes, and is not read: "
            f"{', '.join(sorted(unknown)[:8])}; use another file"
        )
