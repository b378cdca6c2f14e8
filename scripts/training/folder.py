"""Configs of the checkpoints in their families' formats, and the folders that hold them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from intaglio.models.storage.safetensors_files import INDEX, SINGLE
from safetensors.torch import save_file
from torch import nn

from .vocabulary import Vocabulary

Values = Mapping[str, Any]


def qwen2(vocabulary: Vocabulary) -> dict[str, Any]:
    """Return the config in the format of transformers 4."""
    return {
        "architectures": ["Qwen2ForCausalLM"],
        "attention_dropout": 0.0,
        "bos_token_id": vocabulary.id("<|endoftext|>"),
        "eos_token_id": vocabulary.id("<|im_end|>"),
        "hidden_act": "silu",
        "hidden_size": 128,
        "initializer_range": 0.02,
        "intermediate_size": 384,
        "max_position_embeddings": 512,
        "max_window_layers": 6,
        "model_type": "qwen2",
        "num_attention_heads": 4,
        "num_hidden_layers": 6,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-06,
        "rope_theta": 10000.0,
        "sliding_window": 512,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.40.1",
        "use_cache": True,
        "use_sliding_window": False,
        "vocab_size": len(vocabulary),
    }


def qwen2_classifier(vocabulary: Vocabulary) -> dict[str, Any]:
    return {
        **qwen2(vocabulary),
        "architectures": ["Qwen2ForSequenceClassification"],
        "id2label": {"0": "negative", "1": "positive"},
        "label2id": {"negative": 0, "positive": 1},
        "pad_token_id": vocabulary.id("<|endoftext|>"),
        "problem_type": "single_label_classification",
    }


def qwen2_moe(vocabulary: Vocabulary) -> dict[str, Any]:
    """Return the config in the format of transformers 4; the first layer is no mixture."""
    return {
        **qwen2(vocabulary),
        "architectures": ["Qwen2MoeForCausalLM"],
        "decoder_sparse_step": 1,
        "mlp_only_layers": [0],
        "model_type": "qwen2_moe",
        "moe_intermediate_size": 96,
        "norm_topk_prob": False,
        "num_experts": 12,
        "num_experts_per_tok": 3,
        "output_router_logits": False,
        "qkv_bias": True,
        "router_aux_loss_coef": 0.01,
        "shared_expert_intermediate_size": 192,
    }


def exaone4(vocabulary: Vocabulary) -> dict[str, Any]:
    """Return the config in the format of transformers 5, with both layer pattern and layer types."""
    return {
        "architectures": ["Exaone4ForCausalLM"],
        "attention_dropout": 0.0,
        "bos_token_id": vocabulary.id("[BOS]"),
        "dtype": "bfloat16",
        "eos_token_id": vocabulary.id("[|endofturn|]"),
        "head_dim": 32,
        "hidden_act": "silu",
        "hidden_size": 128,
        "initializer_range": 0.02,
        "intermediate_size": 320,
        "layer_types": 2 * [*3 * ["sliding_attention"], "full_attention"],
        "max_position_embeddings": 512,
        "model_type": "exaone4",
        "num_attention_heads": 6,
        "num_hidden_layers": 8,
        "num_key_value_heads": 2,
        "pad_token_id": vocabulary.id("[PAD]"),
        "rms_norm_eps": 1e-05,
        "rope_parameters": {
            "factor": 2.0,
            "high_freq_factor": 4.0,
            "low_freq_factor": 1.0,
            "original_max_position_embeddings": 256,
            "rope_theta": 10000.0,
            "rope_type": "llama3",
        },
        "sliding_window": 64,
        "sliding_window_pattern": "LLLG",
        "tie_word_embeddings": False,
        "transformers_version": "5.2.0",
        "use_cache": True,
        "vocab_size": len(vocabulary),
    }


def save(folder: Path, values: Values, vocabulary: Vocabulary, model: nn.Module, *, shards: int = 1) -> None:
    """Write the folder in Hugging Face layout: config, tokenizer, and the weights in bfloat16."""
    folder.mkdir(parents=True, exist_ok=True)
    for stale in folder.glob("*.safetensors*"):
        stale.unlink()
    (folder / "config.json").write_text(json.dumps(values, indent=2) + "\n")
    vocabulary.save(folder)
    if "id2label" not in values:
        generation = {
            "bos_token_id": values["bos_token_id"],
            "do_sample": False,
            "eos_token_id": vocabulary.end_ids,
            "pad_token_id": vocabulary.id(vocabulary.pad),
        }
        (folder / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n")
    tensors = {
        name: tensor.to("cpu", torch.bfloat16).contiguous()
        for name, tensor in model.state_dict().items()
        if not (name == "lm_head.weight" and values["tie_word_embeddings"])
    }
    _save_tensors(folder, tensors, shards)


def _save_tensors(folder: Path, tensors: dict[str, torch.Tensor], shards: int) -> None:
    """Write one file, or several of about the same size with an index."""
    total = sum(tensor.nbytes for tensor in tensors.values())
    if shards == 1:
        save_file(tensors, folder / SINGLE, metadata={"format": "pt"})
        return
    parts: list[dict[str, torch.Tensor]] = [{} for _ in range(shards)]
    done = 0
    for name, tensor in tensors.items():
        parts[min(shards - 1, done * shards // total)][name] = tensor
        done += tensor.nbytes
    weight_map = {}
    for number, part in enumerate(parts, 1):
        name = f"model-{number:05}-of-{shards:05}.safetensors"
        save_file(part, folder / name, metadata={"format": "pt"})
        weight_map.update(dict.fromkeys(part, name))
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n")
