"""The mean of x x^T over a stage's inputs, from which GPTQ computes its Hessian."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

STRIPS = 4
"""Strips of columns in which the symmetric product is computed."""


def mean_outer_product(inputs: Iterator[Tensor], width: int, advance: Callable[[int], None]) -> Tensor:
    """Return the mean of x x^T over all tokens, float32 [K, K].

    It is symmetric: only the strips from the diagonal on are computed.

    Args:
        inputs: float32 [T, K] each.
        width: K.
        advance: called with the number of tokens of each input.
    """
    total = torch.zeros(width, width)
    strips = [slice(start, start + -(-width // STRIPS)) for start in range(0, width, -(-width // STRIPS))]
    tokens = 0
    for piece in inputs:
        for strip in strips:
            total[strip, strip.start :].addmm_(piece[:, strip].t(), piece[:, strip.start :])
        tokens += len(piece)
        advance(len(piece))
    for strip in strips:
        total[strip.stop :, strip] = total[strip, strip.stop :].t()
    return total.div_(tokens)
