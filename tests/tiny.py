"""Tiny random checkpoints, written to a folder as their makers would write them.

The names and shapes of the tensors are spelt out here once more, on their own, so that a test which reads such a
folder also tests that ``intaglio.models`` asks for the right ones.

    folder = write(tmp_path, config("exaone4", "text-generation"))
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor


class _Absent:
    def __repr__(self) -> str:  # the same in every process: test names are made of it
        return "ABSENT"


ABSENT = _Absent()
"""As a value in ``config(...)``: leave the key out."""

CLASSES = {"qwen2": "Qwen2", "exaone4": "Exaone4", "qwen2_moe": "Qwen2Moe"}
SUFFIXES = {
    "text-generation": "ForCausalLM",
    "feature-extraction": "Model",
    "text-classification": "ForSequenceClassification",
    "token-classification": "ForTokenClassification",
    "question-answering": "ForQuestionAnswering",
}
PREFIXES = dict.fromkeys(SUFFIXES, "model.") | {"feature-extraction": "", "question-answering": "transformer."}

_COMMON = {
    "vocab_size": 288,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "hidden_act": "silu",
    "max_position_embeddings": 128,
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
_FAMILY: dict[str, dict[str, Any]] = {
    "qwen2": {"rms_norm_eps": 1e-6, "use_sliding_window": False, "sliding_window": 6, "max_window_layers": 2},
    "exaone4": {
        "rms_norm_eps": 1e-5,
        "sliding_window": 6,
        "sliding_window_pattern": 4,
        "layer_types": ["sliding_attention"] * 3 + ["full_attention"],
    },
    "qwen2_moe": {
        "rms_norm_eps": 1e-6,
        "use_sliding_window": False,
        "sliding_window": 6,
        "max_window_layers": 2,
        "num_experts": 6,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 32,
        "shared_expert_intermediate_size": 48,
        "norm_topk_prob": False,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [1],
        "router_aux_loss_coef": 0.01,
        "output_router_logits": False,
        "qkv_bias": True,
    },
}
_LABELS = {"id2label": {"0": "bad", "1": "fair", "2": "good"}, "label2id": {"bad": 0, "fair": 1, "good": 2}}


def config(
    family: str,
    task: str = "text-generation",
    *,
    spelling: str = "5",
    rope: Mapping[str, Any] | None = None,
    **changes: Any,
) -> dict[str, Any]:
    """A ``config.json``: Qwen2 without windows, EXAONE 4.0 as a hybrid (LLLG, window 6), Qwen2-MoE with one MLP that is
    no mixture; head_dim 16.

    Args:
        spelling: "5" writes ``rope_parameters``; "4" writes ``rope_theta`` and ``rope_scaling`` with a ``rope_type``;
            "4-type" does so with the older ``type``.
        rope: ``rope_parameters`` in the spelling of transformers 5.
        changes: other values for keys, or ABSENT.
    """
    values: dict[str, Any] = {
        "architectures": [CLASSES[family] + SUFFIXES[task]],
        "model_type": family,
        **_COMMON,
        **_FAMILY[family],
    }
    if task in ("text-classification", "token-classification"):
        values |= _LABELS
    parameters: dict[str, Any] = {"rope_type": "default", "rope_theta": 10_000.0, **(rope or {})}
    if spelling == "5":
        values |= {"rope_parameters": parameters, "dtype": "float32", "transformers_version": "5.23.0"}
    else:
        theta = parameters.pop("rope_theta")
        kind = parameters.pop("rope_type")
        scaling = {"type" if spelling == "4-type" else "rope_type": kind, **parameters}
        values |= {"rope_theta": theta, "rope_scaling": None if kind == "default" else scaling}
        values |= {"torch_dtype": "float32", "transformers_version": "4.57.6"}
    return {key: value for key, value in (values | changes).items() if value is not ABSENT}


def task_of(values: Mapping[str, Any]) -> str:
    """Return the task that a config's architecture is for."""
    return next(task for task, suffix in SUFFIXES.items() if values["architectures"][0].endswith(suffix))


def shapes(values: Mapping[str, Any], prefix: str | None = None) -> dict[str, tuple[int, ...]]:
    """Return the checkpoint's tensors, name to shape; ``prefix`` is the trunk's where it is not the usual one."""
    task = task_of(values)
    family = values["model_type"]
    if prefix is None:  # transformers spells the prefix of question answering differently in this family
        prefix = "model." if (family, task) == ("qwen2_moe", "question-answering") else PREFIXES[task]
    hidden, inner = values["hidden_size"], values["intermediate_size"]
    heads, key_value = values["num_attention_heads"], values.get("num_key_value_heads") or values["num_attention_heads"]
    head_dim = values.get("head_dim") or hidden // heads
    found: dict[str, tuple[int, ...]] = {
        "embed_tokens.weight": (values["vocab_size"], hidden),
        "norm.weight": (hidden,),
    }
    for index in range(values["num_hidden_layers"]):
        layer = f"layers.{index}."
        for name, rows in (("q", heads), ("k", key_value), ("v", key_value)):
            found[f"{layer}self_attn.{name}_proj.weight"] = (rows * head_dim, hidden)
            if family == "qwen2" or (family == "qwen2_moe" and values.get("qkv_bias", True)):
                found[f"{layer}self_attn.{name}_proj.bias"] = (rows * head_dim,)
        found[f"{layer}self_attn.o_proj.weight"] = (hidden, heads * head_dim)
        if family == "exaone4":
            found[f"{layer}self_attn.q_norm.weight"] = found[f"{layer}self_attn.k_norm.weight"] = (head_dim,)
        for name, size in _mlps(values, index, inner).items():
            found[f"{layer}{name}.gate_proj.weight"] = found[f"{layer}{name}.up_proj.weight"] = (size, hidden)
            found[f"{layer}{name}.down_proj.weight"] = (hidden, size)
        if "mlp" not in _mlps(values, index, inner):
            found[f"{layer}mlp.gate.weight"] = (values["num_experts"], hidden)
            found[f"{layer}mlp.shared_expert_gate.weight"] = (1, hidden)
        first = "post_feedforward_layernorm" if family == "exaone4" else "input_layernorm"
        found[f"{layer}{first}.weight"] = found[f"{layer}post_attention_layernorm.weight"] = (hidden,)
    found = {prefix + name: shape for name, shape in found.items()}
    labels = len(values.get("id2label") or range(values.get("num_labels", 2)))
    if task == "text-generation" and not values["tie_word_embeddings"]:
        found["lm_head.weight"] = (values["vocab_size"], hidden)
    if task in ("text-classification", "token-classification"):
        found["score.weight"] = (labels, hidden)
    if task == "token-classification":
        found["score.bias"] = (labels,)
    if task == "question-answering":
        found |= {"qa_outputs.weight": (2, hidden), "qa_outputs.bias": (2,)}
    return found


def _mlps(values: Mapping[str, Any], index: int, inner: int) -> dict[str, int]:
    """Return a layer's MLPs and their intermediate sizes: one, or the experts of a mixture."""
    dense = values.get("mlp_only_layers") or []
    sparse = values.get("num_experts", 0) and (index + 1) % values.get("decoder_sparse_step", 1) == 0
    if not sparse or index in dense:
        return {"mlp": inner}
    size, shared = values["moe_intermediate_size"], values["shared_expert_intermediate_size"]
    return {f"mlp.experts.{i}": size for i in range(values["num_experts"])} | {"mlp.shared_expert": shared}


def weights(values: Mapping[str, Any], *, seed: int = 0, prefix: str | None = None) -> dict[str, Tensor]:
    """Return random tensors with a spread that shows errors: no bias is zero, no norm is one, attention is peaked."""
    generator = torch.Generator().manual_seed(seed)
    made = {}
    for name, shape in shapes(values, prefix).items():
        noise = torch.randn(shape, generator=generator)
        if "norm" in name:
            made[name] = 1 + 0.2 * noise
        elif "embed_tokens" in name:
            made[name] = 0.1 * noise  # as small as a trained one, so that the norm's epsilon counts
        else:
            made[name] = 0.25 * noise
    return made


def write(
    folder: Path,
    values: Mapping[str, Any],
    *,
    tensors: Mapping[str, Tensor] | None = None,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    shards: int = 1,
    prefix: str | None = None,
    tokenizer: bool = False,
) -> Path:
    """Write a checkpoint folder and return it.

    Args:
        tensors: instead of random ones.
        dtype: what the weights are stored as.
        shards: number of weight files; more than one come with an index.
        prefix: the trunk's prefix (``model.``, ``transformer.`` or none), if not the architecture's own.
        tokenizer: also a small byte-level BPE tokenizer, its chat template, and a ``generation_config.json``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(values, indent=2), encoding="utf-8")
    made = tensors if tensors is not None else weights(values, seed=seed, prefix=prefix)
    stored = {name: tensor.to(dtype).contiguous() for name, tensor in made.items()}
    if shards == 1:
        save_file(stored, folder / "model.safetensors", {"format": "pt"})
    else:
        write_shards(folder, stored, shards)
    if tokenizer:
        from intaglio.tests import tiny_tokenizer

        tiny_tokenizer.write(folder, values)
    return folder


def write_shards(folder: Path, stored: Mapping[str, Tensor], count: int) -> None:
    """``count`` weight files, the tensors dealt out in turn, and the index that places each."""
    names = [f"model-{i + 1:05}-of-{count:05}.safetensors" for i in range(count)]
    placed = {tensor: names[i % count] for i, tensor in enumerate(stored)}
    for name in names:
        save_file({t: stored[t] for t, where in placed.items() if where == name}, folder / name, {"format": "pt"})
    size = sum(tensor.nbytes for tensor in stored.values())
    index = {"metadata": {"total_size": size}, "weight_map": placed}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2), encoding="utf-8")
