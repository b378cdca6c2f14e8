"""Round to nearest, on the grid with the least weighted error that a search over clipped ranges finds for each block.

Without calibration all weights count the same and the range is not clipped: on real models, clipping by unweighted
squared error makes the text worse, because the few large weights matter more than their number suggests.
"""

import torch
from torch import Tensor

from ..formats.blocks import BlockFormat, QuantizedRows, split

CLIPS = tuple(1 - 0.02 * step for step in range(21))
"""The shares of the full range that the search tries."""

HALF_MAX = 65504.0


def round_to_nearest(weight: Tensor, format: BlockFormat, importance: Tensor | None = None) -> QuantizedRows:
    """Quantize rows of a weight.

    Args:
        weight: [N, K].
        importance: float32 [K], how much a squared error in each column counts (the mean square of the inputs);
            None takes each block's full range.
    """
    scales, zero_points = grid(weight, format, importance)
    return QuantizedRows(format, encode(weight, format, scales, zero_points), scales, zero_points.to(torch.uint8))


def grid(weight: Tensor, format: BlockFormat, importance: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return scales and zero points, both float32 [N, KB]. Scales are rounded to float16, as they are stored."""
    blocks = split(weight.float(), format.block_size)
    weights = None if importance is None else split(importance[None], format.block_size)
    best: tuple[Tensor, Tensor, Tensor] | None = None
    for scale, zero in _candidates(blocks, format, CLIPS if weights is not None else (1.0,)):
        if weights is None:
            return scale, zero
        codes = _round(blocks, scale[..., None], zero[..., None], format.top)
        error = codes.sub_(zero[..., None]).mul_(scale[..., None]).sub_(blocks).square_().mul_(weights).sum(-1)
        if best is None:
            best = error, scale, zero
            continue
        better = error < best[0]
        best = (
            torch.where(better, error, best[0]),
            torch.where(better, scale, best[1]),
            torch.where(better, zero, best[2]),
        )
    assert best is not None
    return best[1], best[2]


def encode(weight: Tensor, format: BlockFormat, scales: Tensor, zero_points: Tensor) -> Tensor:
    """Return the nearest codes on a given grid, uint8 [N, K]."""
    blocks = split(weight.float(), format.block_size)
    codes = _round(blocks, scales[..., None], zero_points[..., None].float(), format.top)
    return codes.to(torch.uint8).flatten(1)[:, : weight.shape[1]]


def _candidates(blocks: Tensor, format: BlockFormat, clips: tuple[float, ...]) -> list[tuple[Tensor, Tensor]]:
    if format.symmetric:
        # A signed scale: the block's largest value gets code 0, one step further from the middle than the top code.
        largest = blocks.gather(-1, blocks.abs().argmax(-1, keepdim=True)).squeeze(-1)
        zero = torch.full_like(largest, float(format.middle))
        ranges = [largest / -format.middle * clip for clip in clips]
        if len(clips) > 1:
            ranges += [largest / (format.middle - 1) * clip for clip in clips]
        return [(stored(scale, format), zero) for scale in ranges]
    low, high = blocks.amin(-1).clamp(max=0), blocks.amax(-1).clamp(min=0)
    pairs = []
    for clip in clips:
        scale = stored((high - low) / format.top * clip, format)
        pairs.append((scale, (low * clip * _inverse(scale)).neg().round().clamp(0, format.top)))
    return pairs


def _round(blocks: Tensor, scale: Tensor, zero: Tensor, top: int) -> Tensor:
    return (blocks * _inverse(scale)).add_(zero).round_().clamp_(0, top)


def _inverse(scale: Tensor) -> Tensor:
    return torch.where(scale == 0, 0.0, 1 / scale)


def stored(scale: Tensor, format: BlockFormat) -> Tensor:
    """Round a scale to float16, as it is stored; one that would become zero becomes the least number above zero."""
    half = (scale / format.scaling).half().float()
    least = torch.copysign(torch.tensor(2.0**-24), scale)
    return torch.where((half == 0) & (scale != 0), least, half) * format.scaling
