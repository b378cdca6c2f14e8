"""Sums and factors that do not depend on the number of threads, so that the bytes of an artifact do not either.

PyTorch's threads share the elements of a matrix product, each of which one of them sums up. They do share a sum over a
whole tensor, and LAPACK's share a factorization, which then add in an order that depends on their number.
"""

import torch
from torch import Tensor

FACTORING_THREADS = 8
"""The threads that factor a matrix, however many processors there are: their number decides the last bits."""


def total(values: Tensor) -> float:
    """Return the sum of a matrix [N, K]: of each row, and then of those."""
    return values.sum(-1).sum().item()


def factor(matrix: Tensor) -> Tensor:
    """Replace a symmetric matrix [K, K] by its lower Cholesky factor, and return it.

    Raises:
        torch.linalg.LinAlgError: it is not positive definite, or not finite.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(FACTORING_THREADS)
    try:
        torch.linalg.cholesky(matrix, out=matrix)
    finally:
        torch.set_num_threads(threads)
    return matrix
