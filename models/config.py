"""A checkpoint's ``config.json`` as a frozen description of what the model computes.

Both spellings are read: transformers 4 (``rope_theta`` and ``rope_scaling``) and 5 (``rope_parameters``). Unknown
keys and unsupported values are refused by name: to ignore one could silently change the result.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..errors import CheckpointError, UnsupportedError
from ..json_fields import is_integer, is_number, shown
from ..json_file import read_object
from .rope import RopeConfig, parse_rope

ProblemType = Literal["regression", "single_label_classification", "multi_label_classification"]

# Present in configs in the wild, without effect on what an inference computes.
_INERT = frozenset(
    """architectures model_type torch_dtype dtype transformers_version use_cache initializer_range attention_dropout
    bos_token_id eos_token_id sep_token_id decoder_start_token_id label2id finetuning_task task_specific_params
    tokenizer_class prefix return_dict output_attentions output_hidden_states chunk_size_feed_forward is_decoder
    tie_encoder_decoder torchscript use_bfloat16 tf_legacy_loss name_or_path auto_map max_length min_length do_sample
    early_stopping num_beams num_beam_groups diversity_penalty temperature top_k top_p typical_p min_p
    repetition_penalty length_penalty no_repeat_ngram_size encoder_no_repeat_ngram_size bad_words_ids
    num_return_sequences output_scores return_dict_in_generate forced_bos_token_id forced_eos_token_id
    remove_invalid_values exponential_decay_length_penalty suppress_tokens begin_suppress_tokens unsloth_version
    unsloth_fixed classifier_dropout hidden_dropout attn_implementation pretraining_tp""".split()
)

# Keys that would change the mathematics: only the value that changes nothing is accepted.
_NEUTRAL: Mapping[str, tuple[object, ...]] = {
    "hidden_act": ("silu",),
    "partial_rotary_factor": (1.0,),
    "is_encoder_decoder": (False,),
    "add_cross_attention": (False,),
    "cross_attention_hidden_size": (None,),
    "pruned_heads": ({}, None),
    "quantization_config": (None,),
    "use_mrope": (False,),
    "mlp_bias": (False,),
    "attn_logit_softcapping": (None,),
    "final_logit_softcapping": (None,),
    "token_classification_bias": (True,),
    "rope_interleaved": (False,),
}

MOST_ELSEWHERE = 2**31 - 1
MOST: Mapping[str, int] = {
    "num_hidden_layers": 1_000,
    "num_attention_heads": 2**14,
    "hidden_size": 2**20,
    "intermediate_size": 2**22,
    "vocab_size": 2**24,
    "head_dim": 2**14,
    "num_labels": 2**20,
}
"""The largest values that are read, several times those of any published model: they bound the work of describing a
checkpoint, which may come from anyone."""

_READ = frozenset(
    """vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads head_dim
    rms_norm_eps max_position_embeddings original_max_position_embeddings tie_word_embeddings rope_theta rope_scaling
    rope_parameters pad_token_id id2label num_labels problem_type sliding_window layer_types is_causal""".split()
)


@dataclass(frozen=True)
class ModelConfig:
    """The computation of a model, in whichever spelling its config has it.

    ``layer_windows``: per layer the sliding window in tokens, counting the current one; None attends to everything.
    ``layer_rotary``: per layer whether queries and keys are rotated.
    ``is_causal``: whether tokens attend to themselves and to earlier ones only; None where config.json does not say so.
    """

    family: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    rms_norm_eps: float
    max_position_embeddings: int
    tie_word_embeddings: bool
    rope: RopeConfig
    layer_windows: tuple[int | None, ...]
    layer_rotary: tuple[bool, ...]
    pad_token_id: int | None = None
    labels: tuple[str, ...] = ("LABEL_0", "LABEL_1")
    problem_type: ProblemType | None = None
    is_causal: bool | None = None

    @property
    def causal(self) -> bool:
        """Return false if tokens attend to the whole sequence, as in encoders."""
        return self.is_causal is not False

    @property
    def context_length(self) -> int:
        """Return the longest sequence, in tokens, that the model is trained for."""
        return self.rope.context_length(self.max_position_embeddings)


class ConfigReader:
    """Typed, checked access to a ``config.json``; every error names the file and the key."""

    def __init__(self, values: Mapping[str, Any], where: str) -> None:
        self.values = values
        self.where = where

    @classmethod
    def open(cls, folder: Path) -> "ConfigReader":
        path = folder / "config.json"
        if not path.exists():
            raise CheckpointError(
                f"{folder} has no config.json; give the folder of a checkpoint in Hugging Face layout"
            )
        try:
            return cls(read_object(path), str(path))
        except ValueError as error:
            raise CheckpointError(f"{error}; fetch the checkpoint again") from None

    def get(self, key: str, default: Any = None) -> Any:
        value = self.values.get(key)
        return default if value is None else value

    def explicit(self, key: str, default: Any) -> Any:
        """Return the value of a key for which null is a value of its own and only absence means the default."""
        return self.values.get(key, default)

    def integer(self, key: str, default: int | None = None, least: int = 1) -> int:
        value = self.get(key, default)
        if not is_integer(value, least):
            raise self.bad(key, f"a whole number of at least {least}")
        most = MOST.get(key, MOST_ELSEWHERE)
        if value > most:
            raise self.bad(key, f"a whole number of at most {most:,}")
        return int(value)

    def number(self, key: str, default: float | None = None) -> float:
        value = self.get(key, default)
        if not is_number(value) or value <= 0:
            raise self.bad(key, "a positive number")
        return float(value)

    def boolean(self, key: str, default: bool) -> bool:
        value = self.get(key, default)
        if not isinstance(value, bool):
            raise self.bad(key, "true or false")
        return value

    def bad(self, key: str, expected: str) -> CheckpointError:
        found = f"is {shown(self.values[key])}" if self.values.get(key) is not None else "is missing"
        return CheckpointError(f"{self.where}: {key} {found}, expected {expected}; mend config.json")

    def refuse_unknown(self, family_keys: frozenset[str]) -> None:
        """Refuse unknown keys and unsupported values.

        Raises:
            UnsupportedError: names the key and its value.
        """
        for key, value in self.values.items():
            if key in _NEUTRAL:
                if value not in _NEUTRAL[key]:
                    raise UnsupportedError(
                        f"{self.where}: {key} = {shown(value)} changes what the model computes and is not supported "
                        f"(only {_NEUTRAL[key][0]!r} is); use a checkpoint without it"
                    )
            elif key not in _READ | _INERT | family_keys and not key.startswith("_"):
                raise UnsupportedError(
                    f"{self.where}: unknown key {key} = {shown(value)}: it may change what the model computes; "
                    "remove it from config.json if it does not"
                )

    def layer_types(self, layers: int) -> tuple[bool, ...] | None:
        """Return ``layer_types`` as one flag per layer, true where attention slides; None where the key is absent."""
        types = self.get("layer_types")
        if types is None:
            return None
        known = {"sliding_attention": True, "full_attention": False}
        named = isinstance(types, list) and all(isinstance(one, str) and one in known for one in types)
        if not named or len(types) != layers:
            raise self.bad("layer_types", f"a list of {layers} entries, each full_attention or sliding_attention")
        return tuple(known[t] for t in types)

    def windows(self, sliding: tuple[bool, ...]) -> tuple[int | None, ...]:
        """Return a window per layer: ``sliding_window`` (4096 unless given) where the layer slides, None elsewhere."""
        window = self.integer("sliding_window", 4096) if any(sliding) else None
        return tuple(window if slides else None for slides in sliding)

    def common(self, *, eps: float, max_positions: int, kv_heads: int | None) -> dict[str, Any]:
        """Return the fields of ModelConfig that both families spell alike; the arguments are the family's defaults."""
        heads = self.integer("num_attention_heads")
        hidden = self.integer("hidden_size")
        kv = self.integer("num_key_value_heads", kv_heads or heads)
        head_dim = self.integer("head_dim", hidden // heads)
        if "head_dim" not in self.values and hidden % heads:
            raise self.bad("hidden_size", f"a multiple of num_attention_heads ({heads}), or an explicit head_dim")
        if heads % kv:
            raise self.bad("num_key_value_heads", f"a divisor of num_attention_heads ({heads})")
        if head_dim % 2:
            raise self.bad("head_dim", "an even number, since RoPE rotates pairs")
        positions = self.integer("max_position_embeddings", max_positions)
        rope = parse_rope(self.values, positions, head_dim, self.where)
        if rope.context_length(positions) > MOST_ELSEWHERE:
            raise self.bad("max_position_embeddings", f"at most {MOST_ELSEWHERE:,} together with the rotary scaling")
        pad = self.get("pad_token_id")
        return {
            "vocab_size": self.integer("vocab_size"),
            "hidden_size": hidden,
            "intermediate_size": self.integer("intermediate_size"),
            "num_hidden_layers": self.integer("num_hidden_layers"),
            "num_attention_heads": heads,
            "num_key_value_heads": kv,
            "head_dim": head_dim,
            "rms_norm_eps": self.number("rms_norm_eps", eps),
            "max_position_embeddings": positions,
            "tie_word_embeddings": self.boolean("tie_word_embeddings", False),
            "rope": rope,
            "pad_token_id": None if pad is None or pad == -1 else self.integer("pad_token_id", least=0),
            "labels": self._labels(),
            "problem_type": self._problem_type(),
            "is_causal": self._is_causal(),
        }

    def _is_causal(self) -> bool | None:
        value = self.explicit("is_causal", True)
        if not isinstance(value, bool):
            shown = "null, which transformers takes for false" if value is None else repr(value)
            raise CheckpointError(f"{self.where}: is_causal is {shown}; write true or false")
        return value if "is_causal" in self.values else None

    def _labels(self) -> tuple[str, ...]:
        named = self.get("id2label")
        if named is None:
            return tuple(f"LABEL_{i}" for i in range(self.integer("num_labels", 2)))
        count = len(named) if isinstance(named, dict) else 0
        try:
            by_id = {int(key): str(value) for key, value in named.items()} if count else {}
        except ValueError:
            by_id = {}
        if not by_id or sorted(by_id) != list(range(count)):
            raise self.bad("id2label", "an object with the keys 0 to the number of labels minus 1")
        return tuple(by_id[i] for i in range(count))

    def _problem_type(self) -> ProblemType | None:
        value = self.get("problem_type")
        match value:
            case None | "regression" | "single_label_classification" | "multi_label_classification":
                return value
        raise self.bad("problem_type", "regression, single_label_classification, multi_label_classification or null")
