"""The weight that a stage should have, and the Hessian of its error, from the inputs of quantized and float layers.

x are the inputs that the quantized layers before compute, and x' those of the float model at the same tokens. GPTQ on x
alone asks for W x, and keeps the errors of all layers before. What the stage should give is W x', and where its output
is added to a residual stream r, which has an error too, W x' + r' - r. In least squares that is the weight

    W + E[drift x^T] (E[x x^T])^-1,    drift = INPUT_SHARE W (x' - x) + RESIDUAL_SHARE (r' - r)

which is quantized in W's place. The shares are below 1 since the calibration text is not the user's. (GPTAQ, Li et al.
2025, has the first term, and LoaQ, Lin et al. 2025, the second.)

The residual stream is normalized by whoever reads it, and so is an output that goes through a norm into it: the size of
an error counts beside the root mean square of what is normalized. Tokens are weighted by it; the few with huge values
would rule the sums otherwise. A norm's weight g, where there is one, multiplies the output, so that r' - r is divided
by g; where g is small, nothing can be corrected.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..methods.gptq import Hessian
from .stream import Inputs

STRIPS = 4
"""Strips of columns in which the symmetric product is computed."""

INPUT_SHARE, RESIDUAL_SHARE = 0.5, 0.5
"""The shares of the errors that are corrected."""

SMALL = 0.3
"""Weights of a norm below this share of their mean let nothing be corrected."""

LEAST_SIZE = 1e-6
"""The least root mean square, for rows of zeros."""


@dataclass(frozen=True)
class Target:
    """The stage's Hessian, and the float weights that it should have.

    Args:
        hessian: of the inputs of the quantized layers.
        correction: what is to be added to the weights: [N, K] where the stage has one weight, and else [K, K], by which
            each weight is to be multiplied first.
        shared: which of the two it is.
    """

    hessian: Hessian
    correction: Tensor
    shared: bool

    def weight(self, weight: Tensor) -> Tensor:
        """Return the weight [N, K] to quantize in the place of ``weight``."""
        return torch.addmm(weight, weight, self.correction) if self.shared else weight + self.correction


class Moments:
    """The means of x x^T, of which only the strips from the diagonal on are computed, and of the drift times x^T.

    Args:
        width: K, of x.
        outputs: of the drift.
    """

    def __init__(self, width: int, outputs: int) -> None:
        self._gram, self._cross = torch.zeros(width, width), torch.zeros(outputs, width)
        size = -(-width // STRIPS)
        self._strips = [slice(start, start + size) for start in range(0, width, size)]
        self._tokens = 0

    def add(self, rows: Tensor, drift: Tensor) -> None:
        """Add x of some tokens, float32 [T, K], and their drift [T, outputs]."""
        for strip in self._strips:
            self._gram[strip, strip.start :].addmm_(rows[:, strip].t(), rows[:, strip.start :])
        self._cross.addmm_(drift.t(), rows)
        self._tokens += len(rows)

    def target(self, *, shared: bool) -> Target:
        """Return the target; nothing can be added any more.

        Args:
            shared: the drift is of x, and else of the outputs.

        Raises:
            torch.linalg.LinAlgError: the Hessian is not positive definite, or not finite.
        """
        for strip in self._strips:
            self._gram[strip.stop :, strip] = self._gram[strip, strip.stop :].t()
        hessian = Hessian.of(self._gram.div_(self._tokens))
        return Target(hessian, hessian.solve(self._cross.div_(self._tokens)), shared)


def target(
    pairs: Iterable[tuple[Inputs, Inputs]],
    weights: Sequence[Tensor],
    norm: Tensor | None = None,
    advance: Callable[[int], None] = lambda _: None,
) -> Target:
    """Compute the target of a stage.

    Args:
        pairs: the stage's inputs in the quantized layers, and in the float ones at the same tokens.
        weights: the stage's weights, float32 [N, K].
        norm: the weight of the norm behind it (``Stage.norm``).
        advance: called with the number of tokens of each pair.

    Raises:
        torch.linalg.LinAlgError: the Hessian is not positive definite, or not finite.
    """
    width = weights[0].shape[1]
    shared = len(weights) > 1
    moments = Moments(width, width if shared else len(weights[0]))
    for quantized, original in pairs:
        rows, drift = quantized.rows, input_drift(quantized.rows, original.rows)
        if not shared:
            drift = drift @ weights[0].t()
            if original.residual is not None:
                assert quantized.residual is not None
                error = original.residual - quantized.residual
                normalized = original.residual
                if norm is not None:
                    normalized = original.rows @ weights[0].t()
                    error = error * _size(normalized) * _inverse(norm)
                drift.add_(error, alpha=RESIDUAL_SHARE)
                share = 1 / _size(normalized)
                rows, drift = rows * share, drift * share
        moments.add(rows, drift)
        advance(len(rows))
    return moments.target(shared=shared)


def _size(rows: Tensor) -> Tensor:
    """Return the root mean square of each row [T, 1]."""
    return rows.square().mean(-1, keepdim=True).sqrt_().clamp_(min=LEAST_SIZE)


def _inverse(norm: Tensor) -> Tensor:
    return torch.where(norm.abs() < SMALL * norm.abs().mean(), 0.0, 1 / norm)


def input_drift(quantized: Tensor, original: Tensor) -> Tensor:
    """Return the share of the inputs' error [T, K] that is to be corrected."""
    return (original - quantized).mul_(INPUT_SHARE)
