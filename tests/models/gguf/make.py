"""Tiny GGUF files, written with gguf-py as llama.cpp's conversion writes them.

Names and metadata are spelt out here once more, from gguf-py's constants and llama.cpp's conversion.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from intaglio.benchmarks.artifacts.mixture_gguf import add_value
from intaglio.tests import tiny
from torch import Tensor

from .packer import quantize

NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
    "mlp.gate": "ffn_gate_inp",
    "mlp.shared_expert_gate": "ffn_gate_inp_shexp",
    "mlp.shared_expert.gate_proj": "ffn_gate_shexp",
    "mlp.shared_expert.up_proj": "ffn_up_shexp",
    "mlp.shared_expert.down_proj": "ffn_down_shexp",
}
EXPERTS = {f"{name}_proj": f"ffn_{name}_exps" for name in ("gate", "up", "down")}
"""One tensor of all experts of a layer, by the name of one's."""
ARCHITECTURES = {"qwen2": "qwen2", "exaone4": "exaone4", "qwen2_moe": "qwen2moe"}
IN_FLOAT32 = ("ffn_gate_inp.weight", "ffn_gate_inp_shexp.weight")
"""What the conversion leaves in float32."""
NORM_AFTER_ATTENTION = {"qwen2": "ffn_norm", "qwen2_moe": "ffn_norm", "exaone4": "post_attention_norm"}
"""``post_attention_layernorm``: before the MLP in Qwen2, on attention's output in EXAONE 4.0."""
WHOLE = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}

FLOATS = {"F32": np.float32, "F16": np.float16, "F64": np.float64}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 2.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


def config(family: str, **changes: Any) -> dict[str, Any]:
    """A config.json whose sizes the K types' blocks of 256 divide."""
    sizes: dict[str, Any] = {"hidden_size": 256, "intermediate_size": 512, "head_dim": 64}
    if family == "qwen2_moe":
        sizes |= {"num_experts": 3, "moe_intermediate_size": 256, "shared_expert_intermediate_size": 512}
    return tiny.config(family, **sizes | changes)


def gguf_name(name: str, family: str) -> str:
    """Return what a tensor is called in a GGUF file."""
    module, leaf = name.rsplit(".", 1)
    if module in WHOLE:
        return f"{WHOLE[module]}.{leaf}"
    _, _, layer, rest = module.split(".", 3)
    if rest.startswith("mlp.experts."):
        return f"blk.{layer}.{EXPERTS[rest.rpartition('.')[2]]}.{leaf}"
    kind = NORM_AFTER_ATTENTION[family] if rest == "post_attention_layernorm" else NAMES[rest]
    return f"blk.{layer}.{kind}.{leaf}"


def write(
    path: Path,
    values: Mapping[str, Any],
    type_name: str = "F32",
    *,
    tensors: Mapping[str, Tensor] | None = None,
    metadata: Mapping[str, Any] | None = None,
    tokenizer: bool = True,
    add: Mapping[str, Tensor] | None = None,
    parts: int = 1,
) -> Path:
    """Write a GGUF file and return it; of a split one the first part.

    Args:
        values: a config.json.
        type_name: of the matrices; vectors are F32.
        tensors: instead of random ones, by their names in Hugging Face layout.
        metadata: more of it; a value None leaves a key out.
        add: tensors by their names in the file, as F32.
        parts: the number of files.
    """
    family = values["model_type"]
    facts = architecture(values) | (vocabulary(values, path.parent) if tokenizer else {}) | dict(metadata or {})
    made = tiny.weights(values) if tensors is None else tensors
    stored = stored_tensors(made, family)
    if values["rope_parameters"]["rope_type"] == "llama3":
        stored["rope_freqs.weight"] = rope_factors(values)
    names = [*stored, *(add or {})]
    count = -(-len(names) // parts)
    for part in range(parts):
        file = path if parts == 1 else path.with_name(f"{path.stem}-{part + 1:05}-of-{parts:05}.gguf")
        writer = gguf.GGUFWriter(file, ARCHITECTURES[family])
        if part == 0:
            for key, value in facts.items():
                if value is not None:
                    add_value(writer, key, value)
        if parts > 1:
            writer.add_uint16("split.no", part)
            writer.add_uint16("split.count", parts)
            writer.add_int32("split.tensors.count", len(names))
        for name in names[part * count : (part + 1) * count]:
            tensor = stored[name] if name in stored else (add or {})[name]
            matrix = tensor.dim() > 1 and name in stored and not name.endswith(IN_FLOAT32)
            add_tensor(writer, name, tensor, type_name if matrix else "F32")
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    return path if parts == 1 else path.with_name(f"{path.stem}-00001-of-{parts:05}.gguf")


def stored_tensors(tensors: Mapping[str, Tensor], family: str) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint as a file has them: those of a layer's experts stacked, [X, N, K]."""
    groups: dict[str, dict[int, Tensor]] = {}
    for name, tensor in tensors.items():
        expert = int(name.split(".experts.")[1].split(".")[0]) if ".experts." in name else 0
        groups.setdefault(gguf_name(name, family), {})[expert] = tensor
    found = {}
    for name, group in groups.items():
        stacked = torch.stack([group[i] for i in sorted(group)]) if "_exps." in name else group[0]
        found[name] = stacked.squeeze(0) if name.endswith("ffn_gate_inp_shexp.weight") else stacked
    return found


def add_tensor(writer: gguf.GGUFWriter, name: str, tensor: Tensor, type_name: str) -> None:
    values = tensor.float().numpy()
    if type_name in FLOATS:
        writer.add_tensor(name, values.astype(FLOATS[type_name]))
    elif type_name == "BF16":
        stored = tensor.bfloat16().view(torch.uint8).numpy()
        writer.add_tensor(name, stored, raw_dtype=gguf.GGMLQuantizationType.BF16)
    else:
        packed = quantize(values.reshape(-1, values.shape[-1]), type_name)
        packed = packed.reshape(*values.shape[:-1], packed.shape[-1])
        writer.add_tensor(name, packed, raw_dtype=gguf.GGMLQuantizationType[type_name])


def architecture(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metadata of a config, as the conversion writes it."""
    family, rope = ARCHITECTURES[values["model_type"]], values["rope_parameters"]
    found: dict[str, Any] = {
        "general.type": "model",
        "general.name": "Tiny",
        "general.quantization_version": 2,
        f"{family}.block_count": values["num_hidden_layers"],
        f"{family}.context_length": values["max_position_embeddings"],
        f"{family}.embedding_length": values["hidden_size"],
        f"{family}.feed_forward_length": values["intermediate_size"],
        f"{family}.attention.head_count": values["num_attention_heads"],
        f"{family}.attention.head_count_kv": values["num_key_value_heads"],
        f"{family}.attention.layer_norm_rms_epsilon": float(values["rms_norm_eps"]),
        f"{family}.rope.freq_base": float(rope["rope_theta"]),
    }
    if "head_dim" in values:
        found |= {f"{family}.attention.{part}_length": values["head_dim"] for part in ("key", "value")}
    if rope["rope_type"] in ("linear", "yarn"):
        found[f"{family}.rope.scaling.type"] = rope["rope_type"]
        found[f"{family}.rope.scaling.factor"] = float(rope["factor"])
    if rope["rope_type"] == "yarn":
        found[f"{family}.rope.scaling.original_context_length"] = rope["original_max_position_embeddings"]
    if family == "qwen2moe":
        found |= {
            "qwen2moe.expert_count": values["num_experts"],
            "qwen2moe.expert_used_count": values["num_experts_per_tok"],
            "qwen2moe.expert_feed_forward_length": values["moe_intermediate_size"],
            "qwen2moe.expert_shared_feed_forward_length": values["shared_expert_intermediate_size"],
        }
    if family == "exaone4":
        found["exaone4.vocab_size"] = values["vocab_size"]
        if values["sliding_window"] is not None:
            found["exaone4.attention.sliding_window"] = values["sliding_window"]
            pattern = [kind == "sliding_attention" for kind in values["layer_types"]]
            found["exaone4.attention.sliding_window_pattern"] = pattern
    return found


def rope_factors(values: Mapping[str, Any]) -> Tensor:
    """Return the factors of llama3's scaling, in the float32 operations of the conversion."""
    rope = values["rope_parameters"]
    dim = values.get("head_dim") or values["hidden_size"] // values["num_attention_heads"]
    factor, low, high = rope["factor"], rope["low_freq_factor"], rope["high_freq_factor"]
    length = rope["original_max_position_embeddings"]
    found = []
    for frequency in 1.0 / (rope["rope_theta"] ** (torch.arange(0, dim, 2, dtype=torch.float32) / dim)):
        wavelength = 2 * torch.pi / frequency
        if wavelength < length / high:
            found.append(torch.tensor(1.0))
        elif wavelength > length / low:
            found.append(torch.tensor(factor))
        else:
            smooth = (length / wavelength - low) / (high - low)
            found.append(1 / ((1 - smooth) / factor + smooth))
    return torch.stack(found).float()


def vocabulary(values: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return the metadata of the tiny tokenizer: tokens, types and merges."""
    from intaglio.tests import tiny_tokenizer

    hidden = folder / ".tokenizer"
    hidden.mkdir(exist_ok=True)
    tiny_tokenizer.write(hidden, values)
    settings = json.loads((hidden / "tokenizer_config.json").read_text(encoding="utf-8"))
    data = json.loads((hidden / "tokenizer.json").read_text(encoding="utf-8"))
    return tokenizer_metadata(data, values, settings.get("chat_template"))


def tokenizer_metadata(data: Mapping[str, Any], values: Mapping[str, Any], template: str | None) -> dict[str, Any]:
    """Return the metadata of a tokenizer.json, as get_vocab_base and SpecialVocab of the conversion write it."""
    added = {entry["id"]: entry for entry in data["added_tokens"]}
    by_id = {number: token for token, number in data["model"]["vocab"].items()}
    by_id |= {number: entry["content"] for number, entry in added.items()}
    tokens, types = [], []
    for number in range(values["vocab_size"]):
        tokens.append(by_id.get(number, f"[PAD{number}]"))
        if number not in by_id:
            types.append(gguf.TokenType.UNUSED)
        elif number in added:
            types.append(gguf.TokenType.CONTROL if added[number]["special"] else gguf.TokenType.USER_DEFINED)
        else:
            types.append(gguf.TokenType.NORMAL)
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in data["model"]["merges"]]
    found: dict[str, Any] = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "exaone4" if values["model_type"] == "exaone4" else "qwen2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [int(kind) for kind in types],
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.add_bos_token": False,
    }
    for name, key in (("bos", "bos"), ("eos", "eos"), ("pad", "padding")):
        if values.get(f"{name}_token_id") is not None:
            found[f"tokenizer.ggml.{key}_token_id"] = values[f"{name}_token_id"]
    if template is not None:
        found["tokenizer.chat_template"] = template
    return found


def read_values(path: Path) -> dict[str, Tensor]:
    """Return every quantized tensor of a file as gguf-py dequantizes it, by its name in Hugging Face layout."""
    reader = gguf.GGUFReader(path)
    architecture = reader.fields["general.architecture"].contents()
    names = {}
    for layer in range(reader.fields[f"{architecture}.block_count"].contents()):
        for ours, theirs in NAMES.items():
            names[f"blk.{layer}.{theirs}.weight"] = f"model.layers.{layer}.{ours}.weight"
        for ours, theirs in EXPERTS.items():
            names[f"blk.{layer}.{theirs}.weight"] = f"model.layers.{layer}.mlp.experts.*.{ours}.weight"
    names |= {f"{theirs}.weight": f"{ours}.weight" for ours, theirs in WHOLE.items()}
    found: dict[str, Tensor] = {}
    for tensor in reader.tensors:
        if tensor.tensor_type.name in (*FLOATS, "BF16"):
            continue
        name = names[tensor.name]
        values = torch.from_numpy(np.array(gguf.quants.dequantize(tensor.data, tensor.tensor_type)))
        if values.dim() == 2:
            found[name] = values
        else:
            found |= {name.replace("*", str(expert)): matrix for expert, matrix in enumerate(values)}
    return found
