"""The names of tensors in GGUF files, and those that a checkpoint in Hugging Face layout has for them.

Names: gguf-py's tensor_mapping.py. llama.cpp's conversion changes no number of these two families: queries and keys
are rotated in halves (NeoX), as in transformers, so that rows stay in their order.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from ...errors import CheckpointError, UnsupportedError
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
LAYERS: Mapping[str, Mapping[str, str]] = {
    "qwen2": {
        **_PROJECTIONS,
        "attn_norm.weight": "input_layernorm.weight",
        "ffn_norm.weight": "post_attention_layernorm.weight",
        "attn_q.bias": "self_attn.q_proj.bias",
        "attn_k.bias": "self_attn.k_proj.bias",
        "attn_v.bias": "self_attn.v_proj.bias",
    },
    "exaone4": {
        **_PROJECTIONS,
        "attn_q_norm.weight": "self_attn.q_norm.weight",
        "attn_k_norm.weight": "self_attn.k_norm.weight",
        "post_attention_norm.weight": "post_attention_layernorm.weight",
        "post_ffw_norm.weight": "post_feedforward_layernorm.weight",
    },
}
"""The tensors of a layer by family."""


def renamed(tensors: Mapping[str, StoredTensor], family: str, file: Path) -> dict[str, StoredTensor]:
    """Return the tensors by their names in Hugging Face layout, without the factors of RoPE.

    Raises:
        UnsupportedError: a tensor is none of the family's.
    """
    found: dict[str, StoredTensor] = {}
    unknown = []
    for name, tensor in tensors.items():
        block = BLOCK.fullmatch(name)
        if name in _WHOLE:
            found[_WHOLE[name]] = tensor
        elif block is not None and block[2] in LAYERS[family] and str(int(block[1])) == block[1]:
            found[f"model.layers.{block[1]}.{LAYERS[family][block[2]]}"] = tensor
        elif name != ROPE_FACTORS or family != "exaone4":
            unknown.append(name)
    if unknown:
        count = f"{len(unknown)} tensors are" if len(unknown) > 1 else "a tensor is"
        raise UnsupportedError(
            f"{file}: {count} unknown in the architecture {family}, first {min(unknown)}; it may change what the model "
            "computes, and is not read: use another file"
        )
    if _WHOLE[EMBEDDING] not in found:
        raise CheckpointError(f"{file} has no tensor {EMBEDDING}; it is incomplete: fetch it again")
    return found
