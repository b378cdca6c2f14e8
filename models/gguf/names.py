"""The names of tensors in GGUF files, and those that a checkpoint in Hugging Face layout has for them.

Names: gguf-py's tensor_mapping.py. llama.cpp's conversion changes no number of these families: queries and keys are
rotated in halves (NeoX), as in transformers, so that rows stay in their order.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from ...errors import CheckpointError, UnsupportedError
from .experts import EXPERTS, ROUTER, SHARED_GATE, as_matrix, split
from .header import StoredTensor

EMBEDDING, HEAD, ROPE_FACTORS = "token_embd.weight", "output.weight", "rope_freqs.weight"
BLOCK = re.compile(r"blk\.(\d{1,4})\.(.+)")

_WHOLE = {
    EMBEDDING: "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    HEAD: "lm_head.weight",
}
_PROJECTIONS = {
    "attn_q.weight": "self_attn.q_proj.weight",
    "attn_k.weight": "self_attn.k_proj.weight",
    "attn_v.weight": "self_attn.v_proj.weight",
    "attn_output.weight": "self_attn.o_proj.weight",
    "ffn_gate.weight": "mlp.gate_proj.weight",
    "ffn_up.weight": "mlp.up_proj.weight",
    "ffn_down.weight": "mlp.down_proj.weight",
}
_QWEN2 = {
    **_PROJECTIONS,
    "attn_norm.weight": "input_layernorm.weight",
    "ffn_norm.weight": "post_attention_layernorm.weight",
    "attn_q.bias": "self_attn.q_proj.bias",
    "attn_k.bias": "self_attn.k_proj.bias",
    "attn_v.bias": "self_attn.v_proj.bias",
}
LAYERS: Mapping[str, Mapping[str, str]] = {
    "qwen2": _QWEN2,
    "qwen2moe": {
        **_QWEN2,
        ROUTER: "mlp.gate.weight",
        SHARED_GATE: "mlp.shared_expert_gate.weight",
        "ffn_gate_shexp.weight": "mlp.shared_expert.gate_proj.weight",
        "ffn_up_shexp.weight": "mlp.shared_expert.up_proj.weight",
        "ffn_down_shexp.weight": "mlp.shared_expert.down_proj.weight",
    },
    "exaone4": {
        **_PROJECTIONS,
        "attn_q_norm.weight": "self_attn.q_norm.weight",
        "attn_k_norm.weight": "self_attn.k_norm.weight",
        "post_attention_norm.weight": "post_attention_layernorm.weight",
        "post_ffw_norm.weight": "post_feedforward_layernorm.weight",
    },
}
"""The tensors of a layer by architecture; ``experts.EXPERTS`` has those of all experts of a layer."""


def renamed(
    tensors: Mapping[str, StoredTensor], architecture: str, file: Path, experts: int | None = None
) -> dict[str, StoredTensor]:
    """Return the tensors by their names in Hugging Face layout, one for each expert, without the factors of RoPE.

    Args:
        experts: of a layer, where the architecture has mixtures.

    Raises:
        CheckpointError: a tensor of all experts has not one matrix for each.
        UnsupportedError: a tensor is none of the architecture's.
    """
    found: dict[str, StoredTensor] = {}
    unknown = []
    for name, tensor in tensors.items():
        block = BLOCK.fullmatch(name)
        if name in _WHOLE:
            found[_WHOLE[name]] = tensor
        elif block is not None and block[2] in LAYERS[architecture] and str(int(block[1])) == block[1]:
            whole = as_matrix(tensor) if block[2] == SHARED_GATE else tensor
            found[f"model.layers.{block[1]}.{LAYERS[architecture][block[2]]}"] = whole
        elif block is not None and block[2] in EXPERTS and experts is not None and str(int(block[1])) == block[1]:
            for leaf, one in split(name, tensor, block[2], experts, file).items():
                found[f"model.layers.{block[1]}.{leaf}"] = one
        elif name != ROPE_FACTORS or architecture != "exaone4":
            unknown.append(name)
    if unknown:
        count = f"{len(unknown)} tensors are" if len(unknown) > 1 else "a tensor is"
        raise UnsupportedError(
            f"{file}: {count} unknown in the architecture {architecture}, first {min(unknown)}; it may change what the "
            "model computes, and is not read: use another file"
        )
    if _WHOLE[EMBEDDING] not in found:
        raise CheckpointError(f"{file} has no tensor {EMBEDDING}; it is incomplete: fetch it again")
    return found
