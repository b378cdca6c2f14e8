"""Usual mistakes of a matrix multiplication by the codes that a checkpoint stores: its order, offsets, zero points."""

from collections.abc import Callable, Iterator

from torch import Tensor

from ....models.quantized.weights import BlockGrid
from .mismatch import Hypothesis


def carried_hypotheses(grid: BlockGrid, weight: Tensor, project: Callable[[Tensor], Tensor]) -> Iterator[Hypothesis]:
    """Yield mistakes of a multiplication by the codes of a weight [N, K].

    Args:
        weight: float32, in its own order of columns.
        project: multiplies the activations by another weight [N, K].
    """
    order = grid.order
    if order is not None:
        yield "its codes are sorted by group (act-order), and the activations are not", project(weight[:, order])
        inverse = order.argsort()
        yield "its activations are sorted by group (act-order), and the codes are not", project(weight[:, inverse])
        yield "its activations are gathered in the inverse order (act-order)", project(weight[:, order[order]])
    parameters = grid.parameters()
    columns = weight.shape[1]

    def spread(values: Tensor) -> Tensor:
        """Return one value for each block [N, KB] as one for each column [N, K] of the weight."""
        wide = values.repeat_interleave(min(grid.block_size, columns), 1)[:, :columns]
        return wide if order is None else wide[:, order.argsort()]

    scales = spread(parameters.scales)
    yield "its zero points are one too low", project(weight + scales)
    yield "its zero points are one too high", project(weight - scales)
    if parameters.offsets is not None:
        # An artifact's offset may stand for the zero point too, where its codes have theirs in the middle.
        own = parameters.offsets
        middles = (8,) if grid.bits <= 4 else (16, 128) if grid.bits == 5 else (128,)
        moved = [own + parameters.scales * (middle - parameters.zero_points.float()) for middle in middles]
        for offsets in map(spread, (*moved, own)):
            yield "the offsets of its blocks are left out", project(weight - offsets)
            yield "the offsets of its blocks are subtracted", project(weight - 2 * offsets)
