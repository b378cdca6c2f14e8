"""GPTQ: columns are rounded one after the other, each one's error made good by those still to come.

Frantar et al. (2022), with the columns taken in the order of their inputs' energy, on scales that are fixed beforehand
by a search weighted with that energy: nothing has to be stored about the order, since every column keeps its place and
its block. (Descending further on the same objective, scales and codes in turn, was tried: 4 % less error in twice the
time.)
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..formats.blocks import BlockFormat, Blocks
from .rtn import grid

DAMPING = 0.01
"""Share of the mean energy that is added to every column's: calibration text is finite."""

STRIDE = 128
"""Columns between two updates of all the columns to come."""


@dataclass(frozen=True)
class Curvature:
    """What inputs say of every weight that takes them.

    ``hessian`` [K, K] is the mean of x x^T, damped; ``order`` [K] the columns by energy, the largest first; ``factor``
    the upper Cholesky factor of the inverse, in that order.
    """

    hessian: Tensor
    order: Tensor
    factor: Tensor

    @staticmethod
    def of(hessian: Tensor) -> "Curvature":
        """Damp, sort and factor."""
        hessian = hessian.clone()
        hessian.diagonal().add_(DAMPING * hessian.diagonal().mean().clamp(min=torch.finfo(torch.float32).tiny))
        order = torch.argsort(hessian.diagonal(), descending=True, stable=True)
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(hessian[order][:, order]))
        return Curvature(hessian, order, torch.linalg.cholesky(inverse, upper=True))

    def damage(self, error: Tensor) -> float:
        """Mean square of what a weight's error [N, K] does to the outputs, summed over the outputs."""
        return ((error @ self.hessian) * error).sum().item()


def gptq(weight: Tensor, format: BlockFormat, curvature: Curvature) -> Blocks:
    """Quantize a weight.

    Args:
        weight: float32 [N, K].
        curvature: of its inputs, K wide.
    """
    scales, zeros = grid(weight, format, curvature.hessian.diagonal())
    order, factor = curvature.order, curvature.factor
    blocks = (order // format.block_size).tolist()
    # Columns as rows: a step reads memory that lies together.
    left = weight.t()[order].contiguous()
    by_block, zero_by_block = scales.t().contiguous(), zeros.t().contiguous()
    inverse = torch.where(by_block == 0, 0.0, 1 / by_block)
    codes = torch.empty_like(left)
    size = len(left)
    for start in range(0, size, STRIDE):
        stop = min(start + STRIDE, size)
        errors = torch.empty(stop - start, left.shape[1])
        for k in range(start, stop):
            block = blocks[k]
            code = (left[k] * inverse[block]).add_(zero_by_block[block]).round_().clamp_(0, format.top)
            codes[k] = code
            error = (left[k] - code.sub_(zero_by_block[block]).mul_(by_block[block])).div_(factor[k, k])
            errors[k - start] = error
            left[k + 1 : stop].addr_(factor[k, k + 1 : stop], error, alpha=-1)
        left[stop:].addmm_(factor[start:stop, stop:].t(), errors, alpha=-1)
    placed = torch.empty_like(codes)
    placed[order] = codes
    return Blocks(format, placed.t().contiguous().to(torch.uint8), scales, zeros.to(torch.uint8))
