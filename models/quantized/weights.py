"""The interface of a quantized weight: its numbers and, where the format has them, its codes, scales, zero points."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from ..weight_source import TensorInfo


@dataclass(frozen=True)
class BlockParameters:
    """What the blocks of a weight [N, K] share, KB blocks to a row.

    Args:
        scales: float32 [N, KB].
        zero_points: uint8 [N, KB].
        offsets: float32 [N, KB]; None where no block has one.
    """

    scales: Tensor
    zero_points: Tensor
    offsets: Tensor | None = None


class BlockGrid(Protocol):
    """A weight [N, K] whose numbers are ``scale * (code - zero_point) + offset``, with codes that are whole numbers."""

    @property
    def bits(self) -> int:
        """The bits of a code, 2 to 8: codes and zero points are from 0 to ``2**bits - 1``."""
        ...

    @property
    def block_size(self) -> int:
        """The number of consecutive codes of a row that share a scale; K for one scale a row."""
        ...

    @property
    def order(self) -> Tensor | None:
        """int64 [K]: the weight's column ``order[j]`` has the codes of column j; None where they are in its order."""
        ...

    def parameters(self) -> BlockParameters:
        """Read what the blocks share."""
        ...

    def codes(self, rows: range) -> Tensor:
        """Read the codes of some rows, uint8 [n, K]."""
        ...


class QuantizedWeight(Protocol):
    """A weight [N, K] that is stored quantized."""

    @property
    def info(self) -> TensorInfo:
        """Its file and shape; the dtype is F32, that of ``values``."""
        ...

    @property
    def format(self) -> str:
        """The format in words, as messages name it: ``GPTQ, 4 bits, groups of 128`` or ``Q4_K``."""
        ...

    @property
    def stored_bytes(self) -> int:
        """The bytes that it takes in the checkpoint, with its scales."""
        ...

    @property
    def grid(self) -> BlockGrid | None:
        """Its codes; None where its numbers are not on a grid of whole numbers, as those of FP8 and NF4."""
        ...

    def values(self, rows: range, columns: range) -> Tensor:
        """Read a part of it, float32 [n, k]: what the format's reference computes, without a rounding to float16."""
        ...


@dataclass(frozen=True)
class QuantizedWeights:
    """The quantized weights of a checkpoint.

    Args:
        weights: by the name that the weight has in a checkpoint that is not quantized.
        stored_in: the names of the stored tensors that they take.
        notes: what is read in a way that a user should know of, a sentence each.
    """

    weights: Mapping[str, QuantizedWeight]
    stored_in: frozenset[str]
    notes: tuple[str, ...] = ()
