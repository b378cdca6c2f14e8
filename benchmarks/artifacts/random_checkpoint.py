"""Write checkpoints of a given shape with random weights, shard by shard, without holding them in memory."""

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import torch
from intaglio.models.config import ConfigReader
from intaglio.models.family import FAMILIES
from intaglio.models.heads import build

BLOCK = 1 << 26
SHARD = 4 << 30

_QWEN2: dict[str, object] = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "max_position_embeddings": 32768,
}
_EXAONE4: dict[str, object] = {
    "architectures": ["Exaone4ForCausalLM"],
    "model_type": "exaone4",
    "max_position_embeddings": 131072,
}
_QWEN2_MOE: dict[str, object] = {
    "architectures": ["Qwen2MoeForCausalLM"],
    "model_type": "qwen2_moe",
    "max_position_embeddings": 8192,
}
SHAPES: dict[str, dict[str, object]] = {
    "qwen2-0.5b": _QWEN2
    | {"vocab_size": 151936, "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24}
    | {"num_attention_heads": 14, "num_key_value_heads": 2, "tie_word_embeddings": True, "rope_theta": 1e6},
    "qwen2-1.5b": _QWEN2
    | {"vocab_size": 151936, "hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28}
    | {"num_attention_heads": 12, "num_key_value_heads": 2, "tie_word_embeddings": True, "rope_theta": 1e6},
    "qwen2-7b": _QWEN2
    | {"vocab_size": 152064, "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28}
    | {"num_attention_heads": 28, "num_key_value_heads": 4, "tie_word_embeddings": False, "rope_theta": 1e6},
    "exaone4-1.2b-hybrid": _EXAONE4  # the sizes of the 1.2B, whose published layers are all global
    | {"vocab_size": 102400, "hidden_size": 2048, "intermediate_size": 4096, "num_hidden_layers": 30}
    | {"num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64, "tie_word_embeddings": True}
    | {"sliding_window": 4096, "sliding_window_pattern": "LLLG", "rope_theta": 1e6},
    "exaone4-tiny-hybrid": _EXAONE4
    | {"vocab_size": 512, "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 4}
    | {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32, "tie_word_embeddings": True}
    | {"sliding_window": 256, "sliding_window_pattern": "LLLG", "rope_theta": 1e6},
    "qwen1.5-moe-a2.7b": _QWEN2_MOE
    | {"vocab_size": 151936, "hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 24}
    | {"num_attention_heads": 16, "num_key_value_heads": 16, "tie_word_embeddings": False, "rope_theta": 1e6}
    | {"num_experts": 60, "num_experts_per_tok": 4, "moe_intermediate_size": 1408, "norm_topk_prob": False}
    | {"shared_expert_intermediate_size": 5632},
    "qwen2-moe-tiny": _QWEN2_MOE
    | {"vocab_size": 2048, "hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 2}
    | {"num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": False, "rope_theta": 1e6}
    | {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 96, "norm_topk_prob": False}
    | {"shared_expert_intermediate_size": 192},
    "exaone4-32b": _EXAONE4
    | {"vocab_size": 102400, "hidden_size": 5120, "intermediate_size": 27392, "num_hidden_layers": 64}
    | {"num_attention_heads": 40, "num_key_value_heads": 8, "head_dim": 128, "tie_word_embeddings": False}
    | {"sliding_window": 4096, "sliding_window_pattern": "LLLG", "rope_theta": 1e6},
}


def write(
    folder: Path, shape: str, *, sparse: bool = False, changes: Mapping[str, object] = MappingProxyType({})
) -> Path:
    """Write the checkpoint in bfloat16.

    Args:
        sparse: leave holes in the file, which read as zeros.
        changes: other values of config.json than the shape's.
    """
    folder.mkdir(parents=True)
    config = {**SHAPES[shape], **changes}
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    parsed = FAMILIES[str(config["model_type"])].parse(ConfigReader.open(folder))
    with torch.device("meta"):
        state = build(parsed, "text-generation").state_dict()
    if parsed.tie_word_embeddings:
        del state["lm_head.weight"]
    shards: list[dict[str, torch.Tensor]] = [{}]
    for name, tensor in state.items():
        if sum(2 * t.numel() for t in shards[-1].values()) > SHARD:
            shards.append({})
        shards[-1][name] = tensor
    values = (torch.randn(BLOCK // 2, generator=torch.Generator().manual_seed(0)) * 0.02).to(torch.bfloat16)
    block = values.view(torch.uint8).numpy().data
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        name = f"model-{number:05}-of-{len(shards):05}.safetensors"
        weight_map |= dict.fromkeys(shard, name)
        _write_shard(folder / name, shard, None if sparse else block)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return folder


def _write_shard(path: Path, tensors: dict[str, torch.Tensor], block: memoryview | None) -> None:
    header, offset = {}, 0
    for name, tensor in tensors.items():
        end = offset + 2 * tensor.numel()
        header[name] = {"dtype": "BF16", "shape": list(tensor.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        if block is None:
            file.truncate(8 + len(text) + offset)
        else:
            while offset:
                offset -= file.write(block[: min(offset, len(block))])
