"""The layout of MatMulNBits and GatherBlockQuantized (onnxruntime/docs/ContribOperators.md), and of 5 bits for both."""

from collections.abc import Iterator

from torch import Tensor

from ...weights import Stream
from .blocks import QuantizedRows
from .weight import CODES, LOW_BITS, ZERO_POINTS, QuantizedWeight


class NBitsWeight(QuantizedWeight):
    """Codes uint8 [N, KB, block_size * bits / 8], scales [N, KB], zero points uint8 [N, ceil(KB * bits / 8)].

    In 5 bits codes are [N, KB, block_size / 2], low bits uint8 [N, KB, block_size / 8] and zero points [N, KB].
    """

    @property
    def low_bits(self) -> Stream:
        """The lowest bits of codes of 5 bits."""
        return Stream(self, LOW_BITS, (self.shape[0], self.blocks, self.format.block_size // 8))

    def _codes_shape(self) -> tuple[int, ...]:
        size = self.format.block_size
        return (self.shape[0], self.blocks, size // 2 if self.format.bits == 5 else self.format.packed_bytes(size))

    def _zero_points_shape(self) -> tuple[int, ...]:
        return (self.shape[0], self.format.zero_point_bytes(self.blocks))

    def _pack_codes(self, rows: Iterator[QuantizedRows]) -> Iterator[tuple[str, Tensor]]:
        for quantized in rows:
            yield CODES, quantized.packed_codes()
            if self.format.bits == 5:
                yield LOW_BITS, quantized.packed_low_bits()

    def _pack_scales(self, scales: Tensor) -> Tensor:
        return scales / self.format.scaling

    def _pack_zero_points(self, packed: Tensor) -> Iterator[tuple[str, Tensor]]:
        yield ZERO_POINTS, packed
