"""The quantization scheme of a tensor."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from .blocks import BlockFormat

StoredFloat = Literal["float16", "float32"]
"""The type that scales or offsets are stored in: float16 where it holds every one of them exactly."""


@dataclass(frozen=True)
class ColumnOrder:
    """The order of a weight's columns: the quantized weight's column j is the weight's column ``columns[j]``.

    Args:
        data: the bytes of ``columns``, int64 [K]; so that orders can be compared.
    """

    data: bytes

    @classmethod
    def of(cls, columns: Tensor) -> "ColumnOrder":
        return cls(columns.to(torch.int64).contiguous().numpy().tobytes())

    @property
    def columns(self) -> Tensor:
        return torch.frombuffer(bytearray(self.data), dtype=torch.int64)

    @property
    def inverse(self) -> Tensor:
        """Return int64 [K]: the quantized weight's column of each column of the weight."""
        return self.columns.argsort()


@dataclass(frozen=True)
class Scheme:
    """The quantization of one tensor of the checkpoint.

    Args:
        method: "rtn", "gptq", "awq" or "smoothquant"; "stored" for codes that the checkpoint has.
        accuracy_level: MatMulNBits' attribute: 4 computes with int8 activations, 0 with float ones.
        kl_estimate: the estimated KL divergence that the tensor's error causes, in nats per token.
        scale_type: the type that the scales are stored in.
        offset_type: the same of the offsets of blocks; None for a weight without.
        order: the order of the columns; None for that of the weight.
    """

    format: BlockFormat
    method: str
    accuracy_level: int = 4
    kl_estimate: float | None = field(default=None, compare=False)
    scale_type: StoredFloat = "float16"
    offset_type: StoredFloat | None = None
    order: ColumnOrder | None = None


Schemes = Mapping[str, Scheme]
"""Schemes by tensor of the checkpoint; tensors without one stay in float."""
