"""GPTQ: columns are rounded one after the other, each one's error made good by those still to come.

Frantar et al. (2022), with the columns taken in order of their inputs' energy on scales fixed beforehand, so that no
index is stored; and followed by a descent on the same objective, tr(D H D^T) with D the weight's error: scales by least
squares with the codes held (one small system a row), codes one column at a time with the scales held.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from .blocks import BlockFormat, Blocks, split
from .rtn import grid, stored

DAMPING = 0.01
"""Share of the mean energy that is added to every column's: calibration text is finite."""

STRIDE = 128
"""Columns between two updates of all the columns to come."""

ROUNDS = 2
"""Descents after the first pass; later ones gain less than the calibration text is good for."""

SOLVED_AT_ONCE = 1 << 25
"""Numbers held while the rows' systems are set up."""


@dataclass(frozen=True)
class Curvature:
    """What a layer's inputs say of every weight that takes them: ``hessian`` [K, K], the mean of x x^T, damped."""

    hessian: Tensor
    order: Tensor
    ordered: Tensor
    factor: Tensor

    @staticmethod
    def of(hessian: Tensor) -> "Curvature":
        """Damp and factor; columns that no input reaches count as the least of the others.

        Raises:
            torch.linalg.LinAlgError: not positive definite even damped: there are infinite values among the inputs.
        """
        hessian = hessian.clone()
        hessian.diagonal().add_(DAMPING * hessian.diagonal().mean().clamp(min=torch.finfo(torch.float32).tiny))
        order = torch.argsort(hessian.diagonal(), descending=True, stable=True)
        ordered = hessian[order][:, order]
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(ordered))
        return Curvature(hessian, order, ordered, torch.linalg.cholesky(inverse, upper=True))

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
    columns = _Columns(weight, format, scales, zeros, curvature)
    columns.first_pass()
    for _ in range(ROUNDS):
        scales = _fit_scales(weight, columns.codes(), zeros, scales, format, curvature.hessian)
        columns.rescale(scales)
        columns.descend()
    scales = _fit_scales(weight, columns.codes(), zeros, scales, format, curvature.hessian)
    return Blocks(format, columns.codes().to(torch.uint8), scales, zeros.to(torch.uint8))


class _Columns:
    """The columns of a weight as rows, in the order of their energy: a step then reads memory that lies together."""

    def __init__(self, weight: Tensor, format: BlockFormat, scales: Tensor, zeros: Tensor, curvature: Curvature):
        self.curvature = curvature
        self.top = format.top
        self.block = (curvature.order // format.block_size).tolist()
        self.wanted = weight.t()[curvature.order].contiguous()  # [K, N]
        self.zeros = zeros.t().contiguous()
        self.rounded = torch.empty_like(self.wanted)
        self.rescale(scales)

    def rescale(self, scales: Tensor) -> None:
        self.scales = scales.t().contiguous()
        self.inverse = torch.where(self.scales == 0, 0.0, 1 / self.scales)

    def codes(self) -> Tensor:
        """[N, K], in the weight's own order."""
        codes = torch.empty_like(self.rounded)
        codes[self.curvature.order] = self.rounded
        return codes.t().contiguous()

    def _round(self, column: Tensor, block: int) -> Tensor:
        return (column * self.inverse[block]).add_(self.zeros[block]).round_().clamp_(0, self.top)

    def first_pass(self) -> None:
        factor, left = self.curvature.factor, self.wanted.clone()
        size = len(left)
        for start in range(0, size, STRIDE):
            stop = min(start + STRIDE, size)
            errors = torch.empty(stop - start, left.shape[1])
            for k in range(start, stop):
                block = self.block[k]
                code = self._round(left[k], block)
                self.rounded[k] = code
                error = (left[k] - (code - self.zeros[block]).mul_(self.scales[block])).div_(factor[k, k])
                errors[k - start] = error
                left[k + 1 : stop].addr_(factor[k, k + 1 : stop], error, alpha=-1)
            left[stop:].addmm_(factor[start:stop, stop:].t(), errors, alpha=-1)

    def descend(self) -> None:
        """Round every column once more, to what is best with all the others as they are."""
        hessian, size = self.curvature.ordered, len(self.wanted)
        error = self.wanted - (self.rounded - self.zeros[self.block]).mul_(self.scales[self.block])
        gradient = hessian @ error
        for start in range(0, size, STRIDE):
            stop = min(start + STRIDE, size)
            near = hessian[start:stop, start:stop]
            steps = torch.empty(stop - start, error.shape[1])
            for k in range(start, stop):
                i, block = k - start, self.block[k]
                best = (self.wanted[k] - error[k]).add_(gradient[k], alpha=1 / hessian[k, k].item())
                code = self._round(best, block)
                step = (code - self.rounded[k]).mul_(self.scales[block])
                self.rounded[k] = code
                steps[i] = step
                gradient[start:stop].addr_(near[i], step, alpha=-1)
            gradient[:start].addmm_(hessian[:start, start:stop], steps, alpha=-1)
            gradient[stop:].addmm_(hessian[stop:, start:stop], steps, alpha=-1)


def _fit_scales(
    weight: Tensor, codes: Tensor, zeros: Tensor, scales: Tensor, format: BlockFormat, hessian: Tensor
) -> Tensor:
    """The scales [N, KB] that make the error least with these codes, all of a row's blocks at once."""
    rows, columns = weight.shape
    size, blocks = format.block_size, format.blocks(columns)
    padded = blocks * size
    levels = split(codes, size) - zeros[..., None]
    levels.view(rows, padded)[:, columns:] = 0
    wanted = (split(weight @ hessian, size) * levels).sum(-1)
    wide = torch.nn.functional.pad(hessian, (0, padded - columns, 0, padded - columns))
    by_block = wide.view(padded, blocks, size).permute(1, 0, 2)  # [KB, K, size]
    fitted = torch.empty_like(scales)
    step = max(1, SOLVED_AT_ONCE // (padded * blocks))
    for start in range(0, rows, step):
        some = levels[start : start + step]
        reach = torch.bmm(by_block, some.permute(1, 2, 0)).permute(2, 1, 0)  # [R, K, KB]
        system = (reach.reshape(len(some), blocks, size, blocks) * some[..., None]).sum(2)
        # A block of zeros leaves its scale open: a little weight on the scale that is there decides.
        keep = 1e-4 * system.diagonal(dim1=1, dim2=2).mean(1, keepdim=True) + 1e-12
        system.diagonal(dim1=1, dim2=2).add_(keep)
        right = wanted[start : start + step] + keep * scales[start : start + step]
        lower, failed = torch.linalg.cholesky_ex(system)
        found = torch.cholesky_solve(right[..., None], lower)[..., 0]
        fitted[start : start + step] = torch.where(failed[:, None] == 0, found, scales[start : start + step])
    return stored(fitted)
