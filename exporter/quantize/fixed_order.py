"""Sums and Cholesky factors that do not depend on the number of threads, so that an artifact's bytes do not either.

In a matrix product each element is summed by one thread. A sum over a whole tensor and LAPACK's factorization are
divided among the threads, and are added in an order that depends on their number.
"""

import torch
from torch import Tensor

FACTORING_THREADS = 8
"""The threads of a factorization, whatever the number of processors: it determines the last bits of the factor."""


def total(values: Tensor) -> float:
    """Return the sum of a matrix [N, K]: rows are summed first."""
    return values.sum(-1).sum().item()


def factor(matrix: Tensor) -> Tensor:
    """Factor a symmetric matrix [K, K] in place, and return its lower Cholesky factor.

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
