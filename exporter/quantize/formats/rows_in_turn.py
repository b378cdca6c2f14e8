"""The quantized rows of the experts of a layer, one expert after the other."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ....models.weight_source import WeightSource
from ...weights import InTurn
from .blocks import QuantizedRows
from .scheme import Scheme
from .weight import RowSource


@dataclass(frozen=True)
class RowsInTurn:
    """The rows of ``inner``, from one source for each of its weights."""

    inner: InTurn
    sources: tuple[tuple[RowSource, ...], ...]

    @property
    def scheme(self) -> Scheme:
        """Return the scheme that all share, with the method that most have and the sum of the estimates."""
        schemes = [source.scheme for group in self.sources for source in group]
        methods = [scheme.method for scheme in schemes]
        estimates = [scheme.kl_estimate for scheme in schemes]
        total = sum(kl for kl in estimates if kl is not None) if None not in estimates else None
        return replace(schemes[0], method=max(set(methods), key=methods.count), kl_estimate=total)

    def rows(self, checkpoint: WeightSource) -> Iterator[tuple[Tensor, QuantizedRows]]:
        """Yield consecutive rows: in float32 [n, K], and quantized."""
        for group in self.sources:
            for parts in zip(*(source.rows(checkpoint) for source in group), strict=True):
                weights, quantized = zip(*parts, strict=True)
                yield (
                    in_turn(weights),
                    QuantizedRows(
                        quantized[0].format,
                        in_turn([one.codes for one in quantized]),
                        in_turn([one.scales for one in quantized]),
                        in_turn([one.zero_points for one in quantized]),
                    ),
                )


def in_turn(parts: "tuple[Tensor, ...] | list[Tensor]") -> Tensor:
    """Return the rows of matrices [n, K] in turn: the first rows of all, then the second."""
    return parts[0] if len(parts) == 1 else torch.stack(list(parts), 1).flatten(0, 1)
