"""A checkpoint's ``config.json`` as a frozen description of what the model computes.

Both spellings are read: transformers 4 (``rope_theta`` and ``rope_scaling``) and 5 (``rope_parameters``). Unknown
keys and unsupported values are refused by name: to ignore one could silently change the result.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from ..errors import CheckpointError, UnsupportedError
from ..files.json_fields import is_integer, is_number, shown
from ..files.json_file import read_object
from .activations import ACTIVATIONS, SILU
from .reading.config_keys import check_keys, check_repeated
from .rope import RopeConfig, parse_rope

ProblemType = Literal["regression", "single_label_classification", "multi_label_classification"]

MOST_ELSEWHERE = 2**31 - 1
MOST: Mapping[str, int] = {
    "num_hidden_layers": 1_000,
    "num_attention_heads": 2**14,
    "hidden_size": 2**20,
    "intermediate_size": 2**22,
    "vocab_size": 2**24,
    "head_dim": 2**14,
    "num_labels": 2**20,
    "num_experts": 2**12,
    "moe_intermediate_size": 2**22,
    "shared_expert_intermediate_size": 2**22,
}
"""The largest values that are read, several times those of any published model: they bound the work of describing a
checkpoint, which may come from anyone."""

_READ = frozenset(
    """vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads head_dim
    rms_norm_eps max_position_embeddings original_max_position_embeddings tie_word_embeddings rope_theta rope_scaling
    rope_parameters pad_token_id id2label num_labels problem_type sliding_window layer_types is_causal
    hidden_act quantization_config compression_config quantization""".split()
)


@dataclass(frozen=True)
class Experts:
    """The mixtures of experts of a model, as its config has them.

    Args:
        count: experts of a mixture.
        per_token: experts that compute each token.
        size: the intermediate size of an expert.
        shared_size: the intermediate size of the expert that computes every token.
        normalized: the weights of a token's experts are scaled to the sum 1.
        layers: per layer whether its MLP is a mixture.
        loss_factor: the factor of the load-balancing loss in a loss.
        output_router_logits: router logits and the load-balancing loss are returned unless a call says otherwise.
    """

    count: int
    per_token: int
    size: int
    shared_size: int
    normalized: bool
    layers: tuple[bool, ...]
    loss_factor: float = 0.0
    output_router_logits: bool = False


@dataclass(frozen=True)
class ModelConfig:
    """The computation of a model, in whichever spelling its config has it.

    ``layer_windows``: per layer the sliding window in tokens, counting the current one; None attends to everything.
    ``layer_rotary``: per layer whether queries and keys are rotated.
    ``is_causal``: whether tokens attend to themselves and to earlier ones only; None where config.json does not say so.
    ``hidden_act``: the key of ACTIVATIONS for the gated MLP.
    ``attention_bias``: Qwen2's q, k and v projections have biases.
    ``dual_chunk_length``: the longest sequence for which the model's dual chunk attention equals plain attention.
    ``experts``: None for a model without mixtures of experts.
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
    hidden_act: str = SILU
    attention_bias: bool = True
    dual_chunk_length: int | None = None
    experts: Experts | None = None

    def layer_kind(self, index: int) -> tuple[object, ...]:
        """Return what layer ``index`` computes, but for its weights: layers of one kind have equal graphs."""
        mixes = self.experts is not None and self.experts.layers[index]
        return self.layer_windows[index], self.layer_rotary[index], mixes

    def with_layers(self, indices: Sequence[int]) -> "ModelConfig":
        """Return the config of a model that has these layers only."""
        experts = self.experts
        if experts is not None:
            experts = replace(experts, layers=tuple(experts.layers[index] for index in indices))
        return replace(
            self,
            num_hidden_layers=len(indices),
            layer_windows=tuple(self.layer_windows[index] for index in indices),
            layer_rotary=tuple(self.layer_rotary[index] for index in indices),
            experts=experts,
        )

    @property
    def causal(self) -> bool:
        """Return false if tokens attend to the whole sequence, as in encoders."""
        return self.is_causal is not False

    @property
    def context_length(self) -> int:
        """Return the longest sequence, in tokens, that the model is trained for and that plain attention computes."""
        trained = self.rope.context_length(self.max_position_embeddings)
        return trained if self.dual_chunk_length is None else min(trained, self.dual_chunk_length)


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

    def refuse_unknown(
        self, family_keys: frozenset[str], neutral: Mapping[str, tuple[object, ...]] | None = None
    ) -> None:
        """Refuse unknown keys and unsupported values, all at once; as ``check_keys``."""
        check_keys(self.values, _READ | family_keys, neutral or {}, self.where)

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
        """Return the fields of ModelConfig that all families spell alike; the arguments are the family's defaults."""
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
        vocabulary, pad = self.integer("vocab_size"), self.get("pad_token_id")
        pad = None if pad is None or pad == -1 else self.integer("pad_token_id", least=0)
        if pad is not None and pad >= vocabulary:
            raise self.bad("pad_token_id", f"a token of the vocabulary, below vocab_size ({vocabulary:,})")
        common = {
            "vocab_size": vocabulary,
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
            "pad_token_id": pad,
            "labels": self._labels(),
            "problem_type": self._problem_type(),
            "is_causal": self._is_causal(),
            "hidden_act": self._hidden_act(),
        }
        check_repeated(self.values, {**common, "rope_theta": rope.theta}, self.where)
        return common

    def _hidden_act(self) -> str:
        value = self.explicit("hidden_act", SILU)
        if not isinstance(value, str) or value not in ACTIVATIONS:
            shown_value = "missing" if value is None else shown(value)
            raise UnsupportedError(
                f"{self.where}: hidden_act is {shown_value}, an activation function that is not supported; supported "
                f"are {', '.join(sorted(ACTIVATIONS))}"
            )
        return SILU if value == "swish" else value

    def _is_causal(self) -> bool | None:
        value = self.explicit("is_causal", True)
        if not isinstance(value, bool):
            found = "null, which transformers takes for false" if value is None else shown(value)
            raise CheckpointError(f"{self.where}: is_causal is {found}; write true or false")
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
