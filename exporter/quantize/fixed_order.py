"""Computations that do not depend on the number of threads, so that an artifact's bytes do not either.

In a matrix product each element is summed by one thread. A sum over a whole tensor and LAPACK's factorization are
divided among the threads, and are added in an order that depends on their number. An exponential is computed in
vectors, and otherwise where a thread's share ends between two.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

FIXED_THREADS = 8
"""The threads of what depends on their number, whatever the number of processors."""


@contextmanager
def fixed_threads() -> Iterator[None]:
    """Compute with ``FIXED_THREADS``."""
    threads = torch.get_num_threads()
    torch.set_num_threads(FIXED_THREADS)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def total(values: Tensor) -> float:
    """Return the sum of a matrix [N, K]: rows are summed first."""
    return values.sum(-1).sum().item()


def factor(matrix: Tensor) -> Tensor:
    """Factor a symmetric matrix [K, K] in place, and return its lower Cholesky factor.

    Raises:
        torch.linalg.LinAlgError: it is not positive definite, or not finite.
    """
    with fixed_threads():
        torch.linalg.cholesky(matrix, out=matrix)
    return matrix


def elementwise(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Return an activation function with the same results, forward and backward, for any number of threads."""

    def apply(values: Tensor) -> Tensor:
        result: Tensor = _Elementwise.apply(values, function)  # type: ignore[no-untyped-call]
        return result

    return apply


class _Elementwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.save_for_backward(values)
        ctx.function = function
        with fixed_threads():
            return function(values)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        values = ctx.saved_tensors[0].detach().requires_grad_()
        with torch.enable_grad(), fixed_threads():
            (gradient,) = torch.autograd.grad(ctx.function(values), values, gradients)
        return gradient, None
