"""The scales that AWQ and SmoothQuant fold, searched stage by stage on the calibration text."""

from collections.abc import Callable, Collection

import torch
from torch import Tensor

from ....models.weight_source import WeightSource
from ..methods.rescale import Folding, carrier_of
from ..methods.smooth import Multiply, best_scales, spaced_rows
from .stream import LayerStream, Stage

TOKENS = 512
"""Tokens, evenly spaced over the calibration text, on which scales are compared."""

OUTPUTS = 1024
"""Outputs of a stage, evenly spaced over its projections, on which scales are compared."""


@torch.no_grad()
def smoothing(
    checkpoint: WeightSource,
    windows: Tensor,
    wanted: Collection[str],
    multiply: Multiply,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Folding]:
    """Return the scales of every stage that has a carrier and whose weights are all ``wanted``.

    Args:
        windows: int64 [W, S], the calibration text.
        wanted: tensors of the checkpoint.
        multiply: the multiplication of the quantized model.
        progress: called with (layers done, layers in all).
    """
    stream = LayerStream(checkpoint, windows)
    depth = checkpoint.config.num_hidden_layers
    found = []
    for index in range(depth):
        layer = stream.load(index)
        for stage in stream.stages(layer):
            carrier = carrier_of(checkpoint, index, stage.names)
            if carrier is None or not all(name in wanted for name in carrier.multiplied):
                continue
            inputs = spaced_rows(torch.cat([piece.rows for piece in stream.inputs(layer, stage)]), TOKENS)
            found.append(Folding(carrier, best_scales(inputs, _weights(stage), carrier, multiply)))
        stream.advance(layer)
        progress(index + 1, depth)
    return found


def _weights(stage: Stage) -> Tensor:
    """Return some rows of each of the stage's projections, float32 [N, K]."""
    share = -(-OUTPUTS // len(stage.modules))
    return torch.cat([spaced_rows(module.weight, share) for module in stage.modules])
