"""The keys of config.json that a family need not read: those without effect, and those that only repeat another key.

A key that is in none of the tables may change what the model computes, and is refused. The tables follow what
transformers' ``PreTrainedConfig`` and the families' own classes read: a key that they do not read changes nothing in
the reference, but other programs may give it a meaning, so that only names of known, harmless purpose are listed.
"""

from collections.abc import Mapping
from typing import Any

from ...errors import UnsupportedError
from ...files.generation_settings import KEYS as GENERATION_KEYS
from ...files.json_fields import shown

# Without effect on what an inference computes.
INERT = frozenset(
    # PreTrainedConfig, and what earlier versions of it wrote
    """architectures model_type torch_dtype dtype transformers_version use_cache initializer_range attention_dropout
    bos_token_id eos_token_id sep_token_id decoder_start_token_id label2id finetuning_task task_specific_params
    tokenizer_class prefix return_dict output_attentions output_hidden_states chunk_size_feed_forward is_decoder
    tie_encoder_decoder torchscript use_bfloat16 tf_legacy_loss name_or_path auto_map attn_implementation
    keys_to_ignore_at_inference
    classifier_dropout hidden_dropout pretraining_tp
    diversity_penalty num_return_sequences output_scores return_dict_in_generate remove_invalid_values"""
    # dropout, which only training has, and initial values
    """ dropout hidden_dropout_prob attention_probs_dropout_prob embd_pdrop resid_pdrop attn_pdrop embed_dropout
    emb_dropout_prob attn_dropout_prob resid_dropout_prob residual_dropout layerdrop init_std init_method_std
    initializer_factor """
    # trainers: how they compute, not what; and the tokenizer's settings
    """ gradient_checkpointing use_flash_attn use_flash_attention use_flash_attention_2 use_liger_kernel fp16 bf16 fp32
    tokenizer_model_max_length tokenizer_padding_side pad_token bos_token eos_token unk_token """
    # hosts
    """ transformers.js_config custom_pipelines pipeline_tag library_name license tags""".split()
)

INERT_PREFIXES = ("_", "unsloth_")
"""Private keys of transformers (_name_or_path, _commit_hash), and those of a trainer."""

# Keys that would change the mathematics: only the values that change nothing are accepted.
NEUTRAL: Mapping[str, tuple[object, ...]] = {
    "partial_rotary_factor": (1.0,),
    "is_encoder_decoder": (False,),
    "add_cross_attention": (False,),
    "cross_attention_hidden_size": (None,),
    "pruned_heads": ({},),
    "use_mrope": (False,),
    "mlp_bias": (False,),
    "attn_logit_softcapping": (None,),
    "final_logit_softcapping": (None,),
    "token_classification_bias": (True,),
    "rope_interleaved": (False,),
    "use_logn_attn": (False,),
    "use_dynamic_ntk": (False,),
    "use_parallel_residual": (False,),
    "alibi": (False,),
    "embedding_multiplier": (1.0,),
    "residual_multiplier": (1.0,),
    "logits_scaling": (1.0,),
    "logit_scale": (1.0,),
    "scale_emb": (1.0,),
    "num_nextn_predict_layers": (0,),
}

# Other names of a value, by the key that the family reads.
REPEATED: Mapping[str, str] = {
    "rotary_emb_base": "rope_theta",
    "rotary_base": "rope_theta",
    "rope_base": "rope_theta",
    **dict.fromkeys(
        "seq_length seq_len sequence_length max_seq_len max_seq_length max_sequence_length model_max_length "
        "n_positions n_ctx".split(),
        "max_position_embeddings",
    ),
    **dict.fromkeys(("layer_norm_eps", "layer_norm_epsilon", "norm_eps", "rms_norm_epsilon"), "rms_norm_eps"),
    **dict.fromkeys(("num_layers", "n_layer", "n_layers"), "num_hidden_layers"),
    **dict.fromkeys(("num_heads", "n_head", "n_heads"), "num_attention_heads"),
    **dict.fromkeys(("num_kv_heads", "n_kv_heads"), "num_key_value_heads"),
    **dict.fromkeys(("n_embd", "d_model"), "hidden_size"),
    **dict.fromkeys(("kv_channels", "head_size"), "head_dim"),
    **dict.fromkeys(("n_inner", "ffn_hidden_size"), "intermediate_size"),
    "padded_vocab_size": "vocab_size",
    **dict.fromkeys(("activation_function", "hidden_activation"), "hidden_act"),
}


def check_keys(
    values: Mapping[str, Any], read: frozenset[str], neutral: Mapping[str, tuple[object, ...]], where: str
) -> None:
    """Check that every key is read, or has no effect. A null says nothing, but for keys that are read.

    Args:
        read: the keys that the family reads.
        neutral: the family's own entries to NEUTRAL.

    Raises:
        UnsupportedError: names every other key, with its value.
    """
    # Settings of generation are used where there is no generation_config.json, and are checked with it.
    known = read | INERT | GENERATION_KEYS | REPEATED.keys()
    supported = {**NEUTRAL, **neutral}
    changing = {
        key: supported[key]
        for key, value in values.items()
        if key in supported and value is not None and value not in supported[key]
    }
    unknown = [
        key
        for key, value in values.items()
        if value is not None and key not in known | supported.keys() and not key.startswith(INERT_PREFIXES)
    ]
    if len(changing) + len(unknown) > 1:
        named = [
            f"{key} = {shown(values[key])} (only {allowed[0]!r} is supported)" for key, allowed in changing.items()
        ]
        named += [f"{key} = {shown(values[key])} (unknown)" for key in unknown]
        raise UnsupportedError(
            f"{where}: {len(named)} keys may change what the model computes: {', '.join(named)}; remove from "
            "config.json those that do not"
        )
    for key, allowed in changing.items():
        raise UnsupportedError(
            f"{where}: {key} = {shown(values[key])} changes what the model computes and is not supported "
            f"(only {allowed[0]!r} is); use a checkpoint without it"
        )
    for key in unknown:
        raise UnsupportedError(
            f"{where}: unknown key {key} = {shown(values[key])}: it may change what the model computes; "
            "remove it from config.json if it does not"
        )


def check_repeated(values: Mapping[str, Any], held: Mapping[str, Any], where: str) -> None:
    """Check that the keys of REPEATED have the values that they repeat.

    Args:
        held: the values by their names in REPEATED.

    Raises:
        UnsupportedError: names every key that has another value.
    """
    other = [key for key, field in REPEATED.items() if values.get(key) not in (None, held[field])]
    if other:
        named = [f"{key} = {shown(values[key])}, and {REPEATED[key]} is {shown(held[REPEATED[key]])}" for key in other]
        raise UnsupportedError(
            f"{where}: {'; '.join(named)}: usually the one repeats the other, and here it may mean something else; "
            "remove the key that does not hold from config.json"
        )
