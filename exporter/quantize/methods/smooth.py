"""Which scales to fold: powers of the inputs' magnitudes, the power by the least error of the stage's outputs.

One search serves both methods that fold scales. SmoothQuant (Xiao et al., 2023) evens out the inputs for integer
products, which have one scale for all of a token; AWQ (Lin et al., 2023) spreads the columns that matter most over
more of a weight's codes.
"""

from collections.abc import Callable, Collection, Iterator

import torch
from torch import Tensor

from ....models.checkpoint import Checkpoint
from ..formats.blocks import BlockFormat
from ..formats.channels import channel_format
from ..layers.stream import LayerStream, Stage
from .rescale import Carrier, Folded, carrier_of
from .rtn import round_to_nearest

POWERS = (0.25, 0.4, 0.55, 0.7, 0.85)
TOKENS = 512
"""Of the calibration text, spread over it, on which powers are compared."""

OUTPUTS = 1024
"""Of a stage, spread over its projections."""

LEAST = 1e-5
"""A column's magnitude is taken for no less than this share of the largest: scales are divided by."""

Product = Callable[[Tensor, Tensor], Tensor]
"""Inputs [T, K] times a weight [N, K] as the quantized model computes it: outputs [T, N]."""


def integer_product(inputs: Tensor, weight: Tensor) -> Tensor:
    """Inputs in 8 bits with a scale for each token, weights with a scale for each output."""
    step = inputs.abs().amax(1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny) / 127
    rounded = (inputs / step).round_().mul_(step)
    return rounded @ round_to_nearest(weight, channel_format(weight.shape[1])).dequantize().t()


def weight_product(format: BlockFormat) -> Product:
    """Weights in blocks, inputs as they are."""
    return lambda inputs, weight: inputs @ round_to_nearest(weight, format).dequantize().t()


@torch.no_grad()
def smoothing(
    checkpoint: Checkpoint,
    windows: Tensor,
    wanted: Collection[str],
    product: Product,
    heard: Callable[[int, int], None] = lambda done, total: None,
) -> list[Folded]:
    """The scales of every stage that has a carrier and whose weights are all ``wanted``.

    Args:
        windows: int64 [W, S], the calibration text.
        wanted: tensors of the checkpoint.
        heard: told (layers done, layers in all).
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
            inputs = _spread(torch.cat(list(stream.inputs(layer, stage))), TOKENS)
            found.append(Folded(carrier, best_scales(inputs, _outputs(stage), carrier, product)))
        stream.advance(layer)
        heard(index + 1, depth)
    return found


def best_scales(inputs: Tensor, weight: Tensor, carrier: Carrier, product: Product) -> Tensor:
    """Scales [n] for the carrier; ones where nothing is better.

    Each token's error counts in proportion to its output, and its inputs in proportion to each other, so that the
    few with massive activations do not decide.

    Args:
        inputs: float32 [T, K].
        weight: float32 [N, K].
    """
    exact = inputs @ weight.t()
    power = exact.square().sum(1).clamp(min=torch.finfo(torch.float32).tiny)
    best, least = None, float("inf")
    for scales in _candidates(inputs, carrier):
        columns = carrier.spread(scales)
        error = (product(inputs / columns, weight * columns) - exact).square_().sum(1).div_(power).mean().item()
        if error < least:
            best, least = scales, error
    assert best is not None, "no candidate gives a finite error"
    return best


def _candidates(inputs: Tensor, carrier: Carrier) -> Iterator[Tensor]:
    tokens = inputs / inputs.norm(dim=1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
    largest, mean = tokens.abs().amax(0), tokens.square().mean(0).sqrt()
    yield torch.ones_like(carrier.gather(largest))
    for magnitudes in (largest, mean):
        of_scales = carrier.gather(magnitudes)
        floored = of_scales.clamp(min=max(LEAST * of_scales.max().item(), torch.finfo(torch.float32).tiny))
        for power in POWERS:
            scales = floored**power
            yield scales / scales.log().mean().exp()


def _outputs(stage: Stage) -> Tensor:
    """Some of the rows of all the stage's projections, float32 [N, K]."""
    share = -(-OUTPUTS // len(stage.modules))
    return torch.cat([_spread(module.weight, share) for module in stage.modules])


def _spread(rows: Tensor, count: int) -> Tensor:
    """At most ``count`` rows, evenly spaced."""
    if len(rows) <= count:
        return rows
    return rows[torch.linspace(0, len(rows) - 1, count).long()]
