"""Mixtures of experts: one node for all experts of a layer, or operators of ai.onnx for each expert.

With operators of ai.onnx, each expert computes the tokens that chose it and no others: their rows are gathered, and
its outputs added to theirs. The cost is that of the experts chosen, and about ten small nodes for each expert of a
layer at every step, whether it is chosen or not. Their outputs are added in float32.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .nodes import ints, node, nodes

FUSED = "intaglio::Experts"
"""The node of a traced graph that ``passes/fuse_experts`` replaces: x, router logits [B*S, X], and the weights of
gate, up and down of each expert."""


def fused_experts(x: Tensor, router_logits: Tensor, mlps: Sequence[nn.Module], top_k: int, normalize: bool) -> Tensor:
    """Write one node for all experts."""
    tokens = x.shape[0] * x.shape[1]
    logits = node("Reshape", [router_logits, ints(-1, len(mlps))], router_logits.dtype, [tokens, len(mlps)])
    weights = [mlp.get_submodule(f"{name}_proj").weight for mlp in mlps for name in ("gate", "up", "down")]
    inputs = [x, logits, *(weight for weight in weights if isinstance(weight, Tensor))]
    return node(FUSED, inputs, x.dtype, x.shape, k=top_k, normalize=int(normalize))


def separate_experts(
    x: Tensor, router_logits: Tensor, mlps: Sequence[nn.Module], top_k: int, normalize: bool
) -> Tensor:
    """Write the nodes of each expert.

    The number of tokens of an expert is known only when it runs; the shapes claim all tokens, and ``trace`` drops them.
    """
    B, S, D = x.shape
    X, T = len(mlps), B * S
    rows = node("Reshape", [x, ints(1, -1, D)], x.dtype, [1, T, D])
    logits = node("Reshape", [router_logits.float(), ints(-1, X)], torch.float32, [T, X])
    probabilities = node("Softmax", [logits], torch.float32, [T, X], axis=-1)
    chosen, experts = nodes(
        "TopK", [probabilities, ints(top_k)], [torch.float32, torch.int64], [[T, top_k]] * 2, axis=-1
    )
    if normalize:
        total = node("ReduceSum", [chosen, ints(-1)], torch.float32, [T, 1])
        chosen = node("Div", [chosen, total], torch.float32, [T, top_k])
    nothing = node("Sub", [probabilities, probabilities], torch.float32, [T, X])
    by_token = node("ScatterElements", [nothing, experts, chosen], torch.float32, [T, X], axis=1)
    by_expert = node("Transpose", [by_token], torch.float32, [X, T], perm=[1, 0]).to(x.dtype)
    output = node("Sub", [rows, rows], x.dtype, [1, T, D])
    # WebGPU's ScatterND adds in float32 and not in float16 (core/providers/webgpu/tensor/scatter_nd.cc).
    output = node("Reshape", [output, ints(-1, D)], x.dtype, [T, D]).float()
    for index, mlp in enumerate(mlps):
        weights = node("Gather", [by_expert, ints(index)], x.dtype, [1, T], axis=0)
        places = node("NonZero", [weights], torch.int64, [2, T])
        places = node("Gather", [places, ints(1)], torch.int64, [1, T], axis=0)
        tokens = node("Reshape", [places, ints(-1)], torch.int64, [T])
        computed = mlp(node("Gather", [rows, tokens], x.dtype, [1, T, D], axis=1))
        scale = node("Gather", [weights, tokens], x.dtype, [1, T], axis=1)
        scaled = computed * node("Unsqueeze", [scale, ints(-1)], x.dtype, [1, T, 1])
        updates = node("Reshape", [scaled.float(), ints(-1, D)], torch.float32, [T, D])
        at = node("Unsqueeze", [tokens, ints(-1)], torch.int64, [T, 1])
        # One expert a node: no token occurs twice in it.
        output = node("ScatterND", [output, at, updates], torch.float32, [T, D], reduction="add")
    shape = node("Shape", [x], torch.int64, [3])
    return node("Reshape", [output.to(x.dtype), shape], x.dtype, [B, S, D])
