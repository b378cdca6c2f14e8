"""Single ONNX nodes in a traced graph, and the operators that both targets write in the same way.

``torch.onnx.ops.symbolic`` records a node as it is given, so that nothing has to be recognized in a decomposed graph
afterwards.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.onnx.ops import symbolic, symbolic_multi_out

Shape = Sequence[int | torch.SymInt]

NAME = "intaglio.name"
"""The metadata key of a traced node that is given a name of its own."""


def node(
    op: str,
    inputs: Sequence[Tensor | None],
    dtype: torch.dtype,
    shape: Shape,
    name: str | None = None,
    **attributes: int | float | str | list[int],
) -> Tensor:
    """Write a node ``domain::Op`` (or ``Op`` of ai.onnx) with one output of the given dtype and shape.

    Args:
        name: the node's name in the artifact; its module path and operator where None.
    """
    version = 1 if "::" in op else None
    properties = None if name is None else {NAME: name}
    return symbolic(op, inputs, attributes, dtype=dtype, shape=shape, version=version, metadata_props=properties)  # type: ignore[arg-type]


def nodes(
    op: str,
    inputs: Sequence[Tensor | None],
    dtypes: Sequence[torch.dtype],
    shapes: Sequence[Shape],
    **attributes: int | float | list[int],
) -> Sequence[Tensor]:
    """Write a node with several outputs."""
    version = 1 if "::" in op else None
    return symbolic_multi_out(op, inputs, attributes, dtypes=dtypes, shapes=shapes, version=version)  # type: ignore[arg-type]


def ints(*values: int) -> Tensor:
    """Write a constant int64 [n]. (A real tensor created while tracing with fake tensors would lose its values.)"""
    return node("Constant", [], torch.int64, [len(values)], value_ints=list(values))


def scalar(value: int) -> Tensor:
    """Write a constant int64 without dimensions."""
    return node("Constant", [], torch.int64, [], value_int=value)


class SharedOps:
    """The operators that are the same for both targets, or differ only in the name of the norm."""

    norm = "RMSNormalization"

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        # stash_type 1: the mean is taken in float32 whatever the inputs' type.
        return node(self.norm, [x, weight], x.dtype, x.shape, axis=-1, epsilon=eps, stash_type=1)

    def head_norm(self, x: Tensor, weight: Tensor, eps: float, heads: int) -> Tensor:
        # Exactly Reshape, norm, Reshape: ONNX Runtime's CUDA provider folds this into GroupQueryAttention.
        B, S, width = x.shape
        dim = weight.shape[0]
        split = node("Reshape", [x, ints(0, 0, heads, dim)], x.dtype, [B, S, heads, dim])
        return node("Reshape", [self.rms_norm(split, weight, eps), ints(0, 0, heads * dim)], x.dtype, [B, S, width])

    def keep(self, hidden: Tensor, positions: int | Tensor) -> Tensor:
        if not isinstance(positions, Tensor):
            return hidden
        # The graph's input: from -positions to the end; 0 starts at 0, which keeps everything.
        start = node("Neg", [positions], torch.int64, [1])
        return node("Slice", [hidden, start, ints(2**63 - 1), ints(1)], hidden.dtype, hidden.shape)


def rotary_embedding(x: Tensor, cos: Tensor, sin: Tensor, heads: int) -> Tensor:
    """Write ai.onnx RotaryEmbedding-23 over [B, S, heads*E] with cos and sin [B, S, E/2]."""
    return node("RotaryEmbedding", [x, cos, sin], x.dtype, x.shape, num_heads=heads)
