"""GPTQ: columns are rounded one after the other; the rounding error of each is compensated in the columns after it.

Frantar et al. (2022), with the columns in descending order of the Hessian's diagonal (activation order), on scales that
a search weighted with that diagonal fixes beforehand: nothing has to be stored about the order, since every column
keeps its index and its block. The Hessian is factored once and never inverted, which gives the same codes (Chee et al.,
2023, theorem 6): with H = L L^T the squared output error of E = Q - W is |E L|^2, and its columns are made as small as
they can be from the last one on.

Minimizing the same objective further, by scales and codes in turn, was tried: 4 % less error in twice the time.
Feedback between rows too, by the Fisher information of the outputs (YAQA, Tseng et al., 2025), took 9 % off the
divergence of four quantized layers of a real 0.5B, and 11 % with tokens weighted by their gradients; 14,336 tokens of
gradients promised 36 %.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..fixed_order import factor, total
from ..formats.blocks import BlockFormat, QuantizedRows
from .rtn import grid

DAMPING = 2.0
"""The share of the diagonal's mean that is added to the diagonal, where there are as many columns as tokens.

It is proportional to columns per token: what few tokens correlate by chance is not made good in other text. Held-out
text chose it (benchmarks/quantization.md); the usual 0.01 loses to plain rounding where tokens are few.
"""

LEAST_DAMPING, MOST_DAMPING = 0.01, 1.0

STRIDE = 128
"""Columns between two updates of all columns after them."""

STRIP = 1024
"""Columns of a matrix that are multiplied at once."""


@dataclass(frozen=True)
class Hessian:
    """The Hessian of the squared output error of every weight that takes the same inputs x.

    It is the mean of x x^T [K, K], damped, and not kept. ``damping`` is what was added to the diagonal, ``diagonal``
    [K] its own, and ``order`` [K] the columns by it, the smallest first. Its lower Cholesky factor in that order is
    ``feedback`` times ``sizes`` [K]: element [j, k] of ``feedback`` is the share of column j's error that column k < j
    makes good.
    """

    damping: float
    diagonal: Tensor
    order: Tensor
    feedback: Tensor
    sizes: Tensor

    @staticmethod
    def of(gram: Tensor, tokens: int) -> "Hessian":
        """Damp, sort and factor the mean of x x^T over some tokens [K, K], which is changed.

        Raises:
            torch.linalg.LinAlgError: it is not positive definite, or not finite.
        """
        share = min(max(DAMPING * len(gram) / tokens, LEAST_DAMPING), MOST_DAMPING)
        damping = share * max(gram.diagonal().mean().item(), torch.finfo(torch.float32).tiny)
        gram.diagonal().add_(damping)
        diagonal = gram.diagonal().clone()
        order = torch.argsort(diagonal, stable=True)
        lower = factor(gram[order[:, None], order])
        sizes = lower.diagonal().clone()
        return Hessian(damping, diagonal, order, lower.div_(sizes), sizes)

    def output_error(self, error: Tensor) -> float:
        """Return the mean squared output error that a weight's error [N, K] causes, summed over the outputs."""
        rows, squares = error[:, self.order], 0.0
        for start in range(0, len(self.order), STRIP):  # a product may copy what it multiplies
            strip = slice(start, start + STRIP)
            squares += total(((rows @ self.feedback[:, strip]) * self.sizes[strip]).square())
        return max(squares - self.damping * total(error.square()), 0.0)


def gptq(weight: Tensor, format: BlockFormat, hessian: Hessian) -> QuantizedRows:
    """Quantize a weight.

    Args:
        weight: float32 [N, K].
        hessian: of its inputs, K wide.
    """
    scales, zeros = grid(weight, format, hessian.diagonal)
    order, feedback = hessian.order, hessian.feedback
    blocks = (order // format.block_size).tolist()
    # Columns as rows: each step reads contiguous memory.
    wanted = weight.t()[order].contiguous()
    left = wanted.clone()
    by_block, zero_by_block = scales.t().contiguous(), zeros.t().contiguous()
    inverse = torch.where(by_block == 0, 0.0, 1 / by_block)
    codes = torch.empty_like(left)
    for stop in range(len(left), 0, -STRIDE):
        start = max(stop - STRIDE, 0)
        errors = torch.empty(stop - start, left.shape[1])
        for k in reversed(range(start, stop)):
            block = blocks[k]
            code = (left[k] * inverse[block]).add_(zero_by_block[block]).round_().clamp_(0, format.top)
            codes[k] = code
            errors[k - start] = code.sub_(zero_by_block[block]).mul_(by_block[block]).sub_(wanted[k])
            # addr_ rounds elements at the threads' borders in another way.
            left[start:k].addcmul_(feedback[k, start:k, None], errors[k - start], value=-1)
        left[:start].addmm_(feedback[start:stop, :start].t(), errors, alpha=-1)
    sorted_back = torch.empty_like(codes)
    sorted_back[order] = codes
    return QuantizedRows(format, sorted_back.t().contiguous().to(torch.uint8), scales, zeros.to(torch.uint8))
