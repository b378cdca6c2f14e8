"""The config of an adapter: ``adapter_config.json`` as peft 0.21 writes it, and as earlier versions did.

A key that may change what is computed is refused by name, as in a checkpoint's config.json.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import sqrt
from pathlib import Path
from typing import Any

from ...artifact import Task
from ...errors import CheckpointError, UnsupportedError
from ...files.foreign_format import ADAPTER
from ...files.json_fields import JSONFields, shown
from ...files.json_file import read_object
from .patterns import NameList, PatternTable, compiled

TASKS: Mapping[str, Task] = {
    "CAUSAL_LM": "text-generation",
    "SEQ_CLS": "text-classification",
    "TOKEN_CLS": "token-classification",
    "QUESTION_ANS": "question-answering",
    "FEATURE_EXTRACTION": "feature-extraction",
}

PROMPTS = frozenset(
    "PROMPT_TUNING MULTITASK_PROMPT_TUNING P_TUNING PREFIX_TUNING ADAPTION_PROMPT CPT CARTRIDGE".split()
)
"""The methods that change what the model reads, and not its weights."""

METHODS = ("LORA", "LOHA", "LOKR", "IA3")

INERT = frozenset(
    # facts of the training, and how it computed
    """peft_type task_type base_model_name_or_path revision auto_mapping peft_version inference_mode lora_dropout
    rank_dropout module_dropout rank_dropout_scale init_weights loftq_config eva_config corda_config lora_ga_config
    runtime_config qalora_group_size megatron_core layers_pattern velora_config monteclora_config
    init_ia3_weights decompose_both decompose_factor use_effective_conv2d"""
    # read below
    """ r lora_alpha alpha rank_pattern alpha_pattern use_rslora use_dora fan_in_fan_out bias lora_bias modules_to_save
    target_modules exclude_modules layers_to_transform trainable_token_indices ensure_weight_tying
    feedforward_modules init_lora_weights""".split()
)

REFUSED: Mapping[str, str] = {
    "layer_replication": "it builds a deeper model from copies of layers",
    "target_parameters": "it changes parameters of mixtures of experts",
    "megatron_config": "its layers are those of Megatron",
    "alora_invocation_tokens": "it is active only after certain tokens, so that no merged weights compute the same",
    "use_qalora": "it pools the inputs, and peft does not merge it either",
    "arrow_config": "it chooses adapters for each token, so that no merged weights compute the same",
    "use_bdlora": "its matrices are block-diagonal",
    "kasa_config": "it truncates the base's weights",
}
"""Options of LoRA that other weights than the base's plus a product of two matrices come from."""

RESIDUAL = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Initial values of LoRA that peft takes out of the base's weights before the training."""


@dataclass(frozen=True)
class AdapterConfig:
    """What an adapter computes. ``notes``: what is read in a way that a user should know of, a sentence each.

    Args:
        where: the file, for messages.
        method: one of METHODS.
        task: the task that it was trained for; None where the file does not say so.
        rank, alpha: by module where the patterns say so.
        token_indices: by embedding, the rows that the adapter brings.
    """

    where: str
    method: str
    task: Task | None
    rank: int
    alpha: float
    ranks: PatternTable
    alphas: PatternTable
    rslora: bool
    dora: bool
    lora_bias: bool
    tied: bool
    modules_to_save: tuple[str, ...]
    targets: "Targets"
    feedforward: NameList
    token_indices: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def rank_of(self, module: str) -> int:
        """Return the rank that the config gives a module."""
        return int(self.ranks.get(module, self.rank))

    def scaling(self, module: str, rank: int) -> float:
        """Return what the product of a module's matrices is multiplied by."""
        alpha = self.alphas.get(module, self.alpha)
        return alpha / (sqrt(rank) if self.rslora else rank)


class Targets:
    """The modules that an adapter was made for, matched as peft matches them."""

    def __init__(self, fields: JSONFields, task: Task | None, saved: tuple[str, ...]) -> None:
        given, where = fields.get("target_modules"), fields.where
        self.known = given is not None
        self.all_linear = isinstance(given, str) and given.lower() == "all-linear"
        self.named = NameList([], where) if self.all_linear else _names(fields, "target_modules")
        self.excluded = _names(fields, "exclude_modules")
        self.saved = frozenset(saved)
        self.classifies = task == "text-classification"
        layers = fields.integers("layers_to_transform", least=0)
        self.layers = None if not layers else frozenset(layers)
        lists = fields.texts("layers_pattern") or []
        inner = [rf"(?:.*?\.)?(?:{one})\.(\d+)\..*" for one in lists] or [r".*?\.[^.]*\.(\d+)\..*"]
        self.layer_patterns = [compiled(one, f"{where}: layers_pattern") for one in inner]

    def __contains__(self, module: str) -> bool:
        parts = module.split(".")
        if module in self.excluded or not self.saved.isdisjoint(parts):
            return False
        if self.all_linear:
            heads = ("lm_head", "score") if self.classifies else ("lm_head",)
            return parts[-1] not in ("embed_tokens", *heads)
        if module not in self.named:
            return False
        if self.layers is None or self.named.pattern is not None or module in self.named.names:
            return True  # peft counts the layers for endings of names only
        found = next((hit for one in self.layer_patterns if (hit := one.fullmatch(module))), None)
        return found is not None and int(found[1]) in self.layers


def read_config(folder: Path) -> AdapterConfig:
    """Read the config of an adapter.

    Raises:
        CheckpointError: it is missing or damaged.
        UnsupportedError: the method or one of its options is not merged.
    """
    path = folder / ADAPTER
    try:
        values = read_object(path)
        if not values:
            raise ValueError(f"{folder} has no {ADAPTER}: it is not a PEFT adapter; give the folder of one")
        return _parse(JSONFields(values, str(path)), str(path))
    except ValueError as error:
        raise CheckpointError(f"{error}") from None


def _parse(fields: JSONFields, where: str) -> AdapterConfig:
    method = _method(fields, where)
    _check_keys(fields.values, where)
    _check_initial(fields, where)
    task_type = fields.text("task_type")
    if task_type is not None and task_type not in TASKS:
        raise UnsupportedError(f"{where}: task_type is {shown(task_type)}; supported are {', '.join(TASKS)}")
    task = None if task_type is None else TASKS[task_type]
    saved = tuple(fields.texts("modules_to_save") or ())
    rank = fields.integer("r", least=1, most=1 << 24)
    if rank is None:
        rank = 8
    alpha = fields.number("alpha" if method in ("LOHA", "LOKR") else "lora_alpha")
    bias = fields.text("bias") or "none"
    if bias not in ("none", "all", "lora_only", "loha_only", "lokr_only"):
        raise CheckpointError(f"{where}: bias is {shown(bias)}; expected none, all or lora_only")
    if fields.boolean("use_dora") and fields.boolean("lora_bias"):
        raise UnsupportedError(f"{where}: use_dora and lora_bias together are not merged; merge the adapter with peft")
    notes = []
    if fields.boolean("fan_in_fan_out"):
        notes.append(f"{where}: fan_in_fan_out = true has no effect on linear layers, as in peft")
    return AdapterConfig(
        where=where,
        method=method,
        task=task,
        rank=rank,
        alpha=8.0 if alpha is None else float(alpha),
        ranks=_table(fields, "rank_pattern"),
        alphas=_table(fields, "alpha_pattern"),
        rslora=bool(fields.boolean("use_rslora")),
        dora=bool(fields.boolean("use_dora")),
        lora_bias=bool(fields.boolean("lora_bias")),
        tied=bool(fields.boolean("ensure_weight_tying")),
        modules_to_save=saved,
        targets=Targets(fields, task, saved),
        feedforward=_names(fields, "feedforward_modules"),
        token_indices=_token_indices(fields),
        notes=tuple(notes),
    )


def _method(fields: JSONFields, where: str) -> str:
    method = fields.get("peft_type")
    if method is None and "fine_tune_type" in fields:
        raise UnsupportedError(
            f"{where} is that of an adapter of mlx-lm, which is not read; fuse it (`mlx_lm.fuse`), and export that"
        )
    if method in PROMPTS:
        raise UnsupportedError(
            f"{where}: peft_type is {method}: it adds to what the model reads, and not to its weights, so that it "
            "cannot be merged"
        )
    if method not in METHODS:
        raise UnsupportedError(
            f"{where}: peft_type is {shown(method)}, which is not merged (those that are: {', '.join(METHODS)}); "
            "merge it with peft (merge_and_unload), save the model, and export that"
        )
    return str(method)


def _check_keys(values: Mapping[str, Any], where: str) -> None:
    """Refuse options that are not merged, and unknown ones that say anything."""
    for key, value in values.items():
        if key in INERT or key.startswith("unsloth_") or value in (None, False, "", [], {}):
            continue
        if key in REFUSED:
            raise UnsupportedError(
                f"{where}: {key} = {shown(value)} is not merged: {REFUSED[key]}; use an adapter without it"
            )
        raise UnsupportedError(
            f"{where}: unknown key {key} = {shown(value)}: it may change what the adapter computes; remove it from "
            f"{ADAPTER} if it does not"
        )


def _check_initial(fields: JSONFields, where: str) -> None:
    initial = fields.get("init_lora_weights")
    if isinstance(initial, str) and initial.lower().startswith(RESIDUAL):
        raise UnsupportedError(
            f"{where}: init_lora_weights is {shown(initial)}: the adapter was trained on other base weights, from "
            "which its initial values were taken; convert it to plain LoRA with peft (save_pretrained(..., "
            "path_initial_model_for_weight_conversion=...)), or merge it with peft"
        )


def _table(fields: JSONFields, key: str) -> PatternTable:
    inner = fields.fields(key)
    values: dict[str, float] = {}
    for pattern in inner.values if inner is not None else ():
        assert inner is not None
        value = inner.integer(pattern, least=1, most=1 << 24) if key == "rank_pattern" else inner.number(pattern)
        if value is None:
            raise inner.bad(pattern, "a number")
        values[pattern] = float(value)
    return PatternTable(values, f"{fields.where}: {key}")


def _names(fields: JSONFields, key: str) -> NameList:
    given = fields.get(key)
    return NameList(given if isinstance(given, str) else fields.texts(key) or (), f"{fields.where}: {key}")


def _token_indices(fields: JSONFields) -> dict[str, tuple[int, ...]]:
    key = "trainable_token_indices"
    given = fields.get(key)
    if not isinstance(given, dict):
        found = {"embed_tokens": fields.integers(key, least=0)} if given is not None else {}
    else:
        inner = fields.fields(key)
        assert inner is not None
        found = {module: inner.integers(module, least=0) for module in inner.values}
    indices = {module.rsplit(".", 1)[-1]: tuple(values or ()) for module, values in found.items()}
    for module, values in indices.items():
        if len(set(values)) < len(values):
            raise ValueError(f"{fields.where}: {key} names a token of {module} twice; correct it")
    return indices
