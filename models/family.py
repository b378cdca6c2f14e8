"""The model families, one record each.

The record says how a config is parsed, which module computes the model, and where its decoder layer has norms. Which
projections a quantizer may rescale, and which intermediate values parity compares, follow from the norms.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..artifact import Task
from ..errors import UsageError
from . import exaone4, qwen2, qwen2_moe
from .config import ConfigReader, ModelConfig
from .layers import Decoder

QKV = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
GATE_UP = ("mlp.gate_proj", "mlp.up_proj")

CLASS_SUFFIXES: Mapping[Task, str] = {
    "text-generation": "ForCausalLM",
    "feature-extraction": "Model",
    "text-classification": "ForSequenceClassification",
    "token-classification": "ForTokenClassification",
    "question-answering": "ForQuestionAnswering",
}
"""The ending of the class names in a config's ``architectures``, by task."""


@dataclass(frozen=True)
class Family:
    """One model family.

    Every family has the projections of ``self_attn`` and ``mlp`` by the names that QKV and GATE_UP show, and adds
    attention and MLP to the residual stream. The norms are given by their attribute names in the layer; None where the
    family has no norm there.

    Args:
        name: ``model_type`` in config.json, ``family`` in the manifest.
        title: the name in reports.
        class_prefix: how the class names in ``architectures`` begin.
        parse: reads a config; raises UnsupportedError for what the module does not express.
        trunk: the module without a head.
        norm_before_attention, norm_before_mlp: normalize what the branch reads.
        norm_after_attention, norm_after_mlp: normalize what the branch adds to the residual stream.
        defaults: what its configuration class has, as transformers documents it, where a config.json must have a value.
        head_norms: whether ``self_attn.q_norm`` and ``k_norm`` normalize each head's query and key.
    """

    name: str
    title: str
    class_prefix: str
    parse: Callable[[ConfigReader], ModelConfig]
    trunk: type[Decoder]
    norm_before_attention: str | None = None
    norm_after_attention: str | None = None
    norm_before_mlp: str | None = None
    norm_after_mlp: str | None = None
    head_norms: bool = False
    defaults: Mapping[str, int] = field(default_factory=dict)

    @property
    def class_names(self) -> dict[str, Task]:
        """Return the class names that ``architectures`` may hold, and the task of each."""
        return {self.class_prefix + suffix: task for task, suffix in CLASS_SUFFIXES.items()}

    @property
    def feeding_norms(self) -> dict[str, tuple[str, ...]]:
        """Return the norms whose output only projections read, and those projections."""
        pairs = ((self.norm_before_attention, QKV), (self.norm_before_mlp, GATE_UP))
        return {norm: projections for norm, projections in pairs if norm is not None}

    @property
    def layer_norms(self) -> tuple[str, ...]:
        """Return the norms [D] of a layer, in the order of execution."""
        norms = (self.norm_before_attention, self.norm_after_attention, self.norm_before_mlp, self.norm_after_mlp)
        return tuple(norm for norm in norms if norm is not None)


_RECORDS = (
    Family(
        name="qwen2",
        title="Qwen2",
        class_prefix="Qwen2",
        parse=qwen2.parse,
        defaults=qwen2.DEFAULTS,
        trunk=qwen2.Qwen2Model,
        norm_before_attention="input_layernorm",
        norm_before_mlp="post_attention_layernorm",
    ),
    Family(
        name="exaone4",
        title="EXAONE 4.0",
        class_prefix="Exaone4",
        parse=exaone4.parse,
        defaults=exaone4.DEFAULTS,
        trunk=exaone4.Exaone4Model,
        norm_after_attention="post_attention_layernorm",
        norm_after_mlp="post_feedforward_layernorm",
        head_norms=True,
    ),
    Family(
        name="qwen2_moe",
        title="Qwen2-MoE",
        class_prefix="Qwen2Moe",
        parse=qwen2_moe.parse,
        defaults=qwen2_moe.DEFAULTS,
        trunk=qwen2_moe.Qwen2MoeModel,
        norm_before_attention="input_layernorm",
        norm_before_mlp="post_attention_layernorm",
    ),
)
FAMILIES: dict[str, Family] = {family.name: family for family in _RECORDS}
"""Every family by its name."""


def architectures() -> dict[str, tuple[Family, Task]]:
    """Return the family and the task of each supported class name of ``architectures``."""
    return {name: (family, task) for family in FAMILIES.values() for name, task in family.class_names.items()}


def configure(family: str, **values: Any) -> ModelConfig:
    """Return a family's configuration: the documented defaults of its class, such as ``Qwen2Config``, and ``values``.

    Args:
        family: ``qwen2`` or ``exaone4``, the ``model_type`` of a ``config.json``.
        values: keys of a ``config.json``, as the family's page documents them.

    Raises:
        UsageError: an unknown family.
        CheckpointError, UnsupportedError: values that are wrong or not supported, as in a ``config.json``.
    """
    if family not in FAMILIES:
        raise UsageError(f"unknown family {family!r}; choose one of {', '.join(FAMILIES)}")
    record = FAMILIES[family]
    return record.parse(ConfigReader({**record.defaults, **values}, f"{record.class_prefix}Config"))
