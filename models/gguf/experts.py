"""Mixtures of experts in a GGUF file: one tensor [X, N, K] has a projection of all experts of a layer.

Each expert's matrix lies by itself in it, so that it is read as a tensor of its own, and no other with it.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...errors import CheckpointError
from .header import StoredTensor

EXPERTS: Mapping[str, str] = {
    "ffn_gate_exps.weight": "mlp.experts.{expert}.gate_proj.weight",
    "ffn_up_exps.weight": "mlp.experts.{expert}.up_proj.weight",
    "ffn_down_exps.weight": "mlp.experts.{expert}.down_proj.weight",
}
"""The tensors of all experts of a layer, and the names of one expert's."""
ROUTER, SHARED_GATE = "ffn_gate_inp.weight", "ffn_gate_inp_shexp.weight"


def split(name: str, tensor: StoredTensor, kind: str, count: int, file: Path) -> dict[str, StoredTensor]:
    """Return the matrices of a tensor of all experts, by their names in a layer.

    Args:
        name: the tensor's in the file.
        kind: a key of EXPERTS.
        count: the number of experts that the metadata says.

    Raises:
        CheckpointError: the tensor has another number of dimensions or of experts.
    """
    if len(tensor.shape) != 3 or tensor.shape[0] != count:
        raise CheckpointError(
            f"{file}: tensor {name} has the shape {list(tensor.shape)}, and expert_count is {count:,}: expected "
            f"[{count}, rows, columns]; fetch the file again"
        )
    size = tensor.nbytes // count
    return {
        EXPERTS[kind].format(expert=expert): replace(
            tensor, shape=tensor.shape[1:], offset=tensor.offset + expert * size
        )
        for expert in range(count)
    }


def as_matrix(tensor: StoredTensor) -> StoredTensor:
    """Return the gate of a shared expert, [K] in the file, with the shape that a checkpoint has: [1, K]."""
    return replace(tensor, shape=(1, *tensor.shape)) if len(tensor.shape) == 1 else tensor


def mixture_config(tensors: Mapping[str, StoredTensor], sizes: Mapping[str, int | None], layers: int) -> dict[str, Any]:
    """Return the keys of config.json that only a mixture has; a layer without a router has the MLP of Qwen2.

    Args:
        tensors: by their names in the file.
        sizes: ``expert_count``, ``expert_used_count``, ``feed_forward_length``, and, where the metadata has them,
            ``expert_feed_forward_length`` and ``expert_shared_feed_forward_length``. Files of before June 2024 lack
            the last two; llama.cpp divides feed_forward_length among the experts of a token then.
        layers: the number of layers.
    """
    inner, used = sizes["feed_forward_length"], sizes["expert_used_count"]
    assert inner is not None
    assert used is not None
    return {
        "num_experts": sizes["expert_count"],
        "num_experts_per_tok": used,
        "moe_intermediate_size": sizes["expert_feed_forward_length"] or inner // used,
        "shared_expert_intermediate_size": sizes["expert_shared_feed_forward_length"] or inner,
        "norm_topk_prob": False,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [layer for layer in range(layers) if f"blk.{layer}.{ROUTER}" not in tensors],
        "qkv_bias": any(name.endswith(".attn_q.bias") for name in tensors),
    }
