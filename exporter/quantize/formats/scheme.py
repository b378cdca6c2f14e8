"""The quantization scheme of a tensor."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from .blocks import BlockFormat


@dataclass(frozen=True)
class Scheme:
    """The quantization of one tensor of the checkpoint.

    Args:
        method: "rtn", "gptq", "awq" or "smoothquant".
        accuracy_level: MatMulNBits' attribute: 4 computes with int8 activations, 0 with float ones.
        kl_estimate: the estimated KL divergence that the tensor's error causes, in nats per token.
    """

    format: BlockFormat
    method: str
    accuracy_level: int = 4
    kl_estimate: float | None = field(default=None, compare=False)


Schemes = Mapping[str, Scheme]
"""Schemes by tensor of the checkpoint; tensors without one stay in float."""
