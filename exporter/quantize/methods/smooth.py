"""The search for scales to fold: powers of the inputs' magnitudes; the power with the least output error is taken.

Both methods that fold scales use it. SmoothQuant (Xiao et al., 2023) evens out the inputs for integer matrix
multiplication, which has one scale for a whole token; AWQ (Lin et al., 2023) gives the columns that matter most more of
a weight's codes.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from ..formats.blocks import BlockFormat, channel_format
from .rescale import Carrier
from .rtn import round_to_nearest

POWERS = (0.25, 0.4, 0.55, 0.7, 0.85)
LEAST = 1e-5
"""The least magnitude of a column, as a share of the largest: inputs are divided by scales."""

Multiply = Callable[[Tensor, Tensor], Tensor]
"""Multiplies inputs [T, K] by a weight [N, K] as the quantized model does; returns outputs [T, N]."""


def integer_matmul(inputs: Tensor, weight: Tensor) -> Tensor:
    """Multiply inputs in 8 bits, a scale for each token, by weights in 8 bits, a scale for each output."""
    step = inputs.abs().amax(1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny) / 127
    rounded = (inputs / step).round_().mul_(step)
    return rounded @ round_to_nearest(weight, channel_format(weight.shape[1])).dequantize().t()


def weight_only_matmul(format: BlockFormat) -> Multiply:
    """Return the multiplication of inputs as they are by weights in blocks."""
    return lambda inputs, weight: inputs @ round_to_nearest(weight, format).dequantize().t()


def best_scales(inputs: Tensor, weight: Tensor, carrier: Carrier, multiply: Multiply) -> Tensor:
    """Return scales [n] for the carrier; ones where nothing is better.

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
        error = (multiply(inputs / columns, weight * columns) - exact).square_().sum(1).div_(power).mean().item()
        if error < least:
            best, least = scales, error
    assert best is not None, "no candidate gives a finite error"
    return best


def _candidates(inputs: Tensor, carrier: Carrier) -> Iterator[Tensor]:
    tokens = inputs / inputs.norm(dim=1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
    largest, mean = tokens.abs().amax(0), tokens.square().mean(0).sqrt()
    yield torch.ones_like(carrier.gather(largest))
    for magnitudes in (largest, mean):
        shared = carrier.gather(magnitudes)
        floored = shared.clamp(min=max(LEAST * shared.max().item(), torch.finfo(torch.float32).tiny))
        for power in POWERS:
            scales = floored**power
            yield scales / scales.log().mean().exp()


def spaced_rows(rows: Tensor, count: int) -> Tensor:
    """Return at most ``count`` of the rows, evenly spaced."""
    if len(rows) <= count:
        return rows
    return rows[torch.linspace(0, len(rows) - 1, count).long()]
