"""8-bit weights with one scale for each output channel, as integer matrix products take them.

Blocks as long as a row are that: ``Rounded`` and ``Solved`` make them like any others, and here they are laid out for
MatMulIntegerToFloat, codes int8 [K, N] and scales float32 [N]. Whole columns are wanted where whole rows come, so a
weight's codes are in memory together, a byte each.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ....models.checkpoint import Checkpoint
from ...weights import PIECE_BYTES
from .blocks import BlockFormat
from .recipes import BlockSource, Codes, Quantized, Scales


def channel_format(columns: int) -> BlockFormat:
    """One block for a whole row [K]."""
    return BlockFormat(8, columns, True)


class ChannelWeight(Quantized):
    """One weight on its way, in ``channel_format``."""

    def __init__(self, source: BlockSource, damage: float | None = None) -> None:
        super().__init__(source, accuracy_level=4, damage=damage)
        assert self.format == channel_format(self.shape[1]), f"{self.format} is not one block for {self.shape[1]}"

    @property
    def codes(self) -> "ChannelCodes":
        return ChannelCodes(self)

    @property
    def scales(self) -> "ChannelScales":
        return ChannelScales(self)

    def stream(self, checkpoint: Checkpoint) -> Iterator[Tensor]:
        """int8 [columns, N] for one range of columns after the other."""
        rows, columns = self.shape
        codes = torch.empty(rows, columns, dtype=torch.int8)
        start = 0
        for packed in super().stream(checkpoint):
            piece = packed.flatten(1).to(torch.int16).sub_(self.format.middle)
            codes[start : start + len(piece)] = piece
            start += len(piece)
        step = max(64, PIECE_BYTES // (4 * rows))
        for first in range(0, columns, step):
            yield codes[:, first : first + step].t()


@dataclass(frozen=True)
class ChannelCodes(Codes):
    """int8 [K, N]."""

    @property
    def shape(self) -> tuple[int, ...]:
        return self.weight.shape[::-1]


@dataclass(frozen=True)
class ChannelScales(Scales):
    """float32 [N]."""

    @property
    def shape(self) -> tuple[int, ...]:
        return self.weight.shape[:1]

    def pieces(self, checkpoint: Checkpoint) -> Iterator[Tensor]:
        return (piece.flatten() for piece in super().pieces(checkpoint))
