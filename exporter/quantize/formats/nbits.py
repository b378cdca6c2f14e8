"""The layout of MatMulNBits and GatherBlockQuantized (onnxruntime/docs/ContribOperators.md)."""

from collections.abc import Iterator

from torch import Tensor

from .blocks import QuantizedRows
from .weight import ZERO_POINTS, QuantizedWeight


class NBitsWeight(QuantizedWeight):
    """Codes uint8 [N, KB, block_size * bits / 8], scales [N, KB], zero points uint8 [N, ceil(KB * bits / 8)]."""

    def _codes_shape(self) -> tuple[int, ...]:
        return (self.shape[0], self.blocks, self.format.packed_bytes(self.format.block_size))

    def _zero_points_shape(self) -> tuple[int, ...]:
        return (self.shape[0], self.format.packed_bytes(self.blocks))

    def _pack_codes(self, rows: Iterator[QuantizedRows]) -> Iterator[Tensor]:
        return (quantized.packed_codes() for quantized in rows)

    def _pack_zero_points(self, packed: Tensor) -> Iterator[tuple[str, Tensor]]:
        yield ZERO_POINTS, packed
