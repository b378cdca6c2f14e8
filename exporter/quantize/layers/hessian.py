"""The weight that a stage should have, and the Hessian of its error, from the inputs of quantized and float layers.

x are the inputs that the quantized layers before compute, and x' those of the float model at the same tokens. GPTQ on x
alone asks for W x, and keeps the errors of all layers before. What the stage should give is W x', and where its output
is added to a residual stream r, which has an error too, W x' + r' - r. In least squares that is the weight

    W + E[drift x^T] (E[x x^T])^-1,    drift = W (x' - x) + r' - r

which is quantized in W's place. (GPTAQ, Li et al. 2025, has the first term, and LoaQ, Lin et al. 2025, the second.)

Most of the drift is noise that x does not tell, and fitted to it the weights would get worse on any other text. So the
correction is damped, and scaled by what is best on tokens that it was not fitted to, which is 0 where it does not help.
The few tokens with huge values in the residual stream, to which all others attend (Sun et al., 2024), would rule the
squares: they are in the Hessian, and are not fitted.

The output may go through a norm into the residual stream: g y / rms(y). An error of y then counts beside the root mean
square of y, by which tokens are weighted, and r' - r is divided by g / rms(y); where g is small, nothing is corrected.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ....machine import give_back_memory
from ..fixed_order import factor, total
from ..methods.gptq import Hessian
from .products import as_multiplied, bfloat16_products
from .stream import Inputs

STRIPS = 4
"""Strips of columns in which a symmetric product is computed."""

HELD_OUT = 4
"""One token in so many is held out: the last ones of each batch."""

DAMPING = 0.5
"""The share of the diagonal that is added to it before a correction is computed; held-out drift chose it."""

HUGE = 8.0
"""Tokens whose residual is so many times the median's are not fitted."""

MOST = 0.25
"""The share of a weight that its correction may have at most, in the Frobenius norm: fitted to little text, inputs of
little energy would carry errors of others, and the weight would not be the source's any more."""

SMALL = 0.3
"""Weights of a norm below this share of their mean let nothing be corrected."""

LEAST = 1e-20
"""The least number that is divided by."""


@dataclass(frozen=True)
class Target:
    """The stage's Hessian, and what its float weights should be.

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
        change = weight @ self.correction if self.shared else self.correction
        share = MOST * math.sqrt(total(weight.square()) / max(total(change.square()), LEAST))
        return torch.add(weight, change, alpha=min(share, 1.0))


class Moments:
    """The sums of x x^T and of the drift times x^T, over some tokens.

    Args:
        width: K, of x.
        outputs: of the drift.
    """

    def __init__(self, width: int, outputs: int) -> None:
        self.gram, self.cross = torch.zeros(width, width), torch.zeros(outputs, width)
        self.tokens = 0
        size = -(-width // STRIPS)
        self._strips = [slice(start, start + size) for start in range(0, width, size)]

    def add(self, rows: Tensor, drift: Tensor) -> None:
        """Add x of some tokens, float32 [T, K], and their drift [T, outputs]."""
        for strip in self._strips:
            self.gram[strip, strip.start :].addmm_(rows[:, strip].t(), rows[:, strip.start :])
        self.cross.addmm_(drift.t(), rows)
        self.tokens += len(rows)

    def complete(self) -> None:
        """Fill in the other half of the symmetric sum: only the strips from the diagonal on are added to."""
        for strip in self._strips:
            self.gram[strip.stop :, strip] = self.gram[strip, strip.stop :].t()

    def squares(self, change: Tensor) -> float:
        """Return the sum of (change x)^2 over the tokens and outputs, of a change of the weights [outputs, K]."""
        squares = 0.0
        for strip in self._strips:  # a product may copy what it multiplies
            squares += total((change @ self.gram[:, strip]) * change[:, strip])
        return squares

    def correction(self) -> Tensor:
        """Return the damped solution [outputs, K].

        Raises:
            torch.linalg.LinAlgError: the sums are not finite.
        """
        size = self.gram.diagonal().clamp(min=LEAST).sqrt()
        matrix = self.gram / size
        matrix /= size[:, None]
        matrix.diagonal().add_(DAMPING)
        factor(matrix)
        return torch.cholesky_solve((self.cross / size).t(), matrix).t() / size


class Fit:
    """The moments of the tokens that a correction is fitted to, and of those that are held out.

    Args:
        width: K, of x.
        outputs: of the drift; None where it is that of x, for several weights.
        weights: float32 [N, K], whose outputs' drift counts where that of x is given; all outputs of x count without.
    """

    def __init__(self, width: int, outputs: int | None, weights: Tensor | None = None) -> None:
        self.shared = outputs is None
        self._weights = weights
        self._fitted, self._held_out = (Moments(width, width if outputs is None else outputs) for _ in range(2))
        self._huge: list[Tensor] = []

    def add(self, rows: Tensor, drift: Tensor, size: Tensor | None = None) -> None:
        """Add x of a batch, float32 [T, K], and its drift.

        Args:
            size: float32 [T], of the residual stream; tokens of a huge one only count in the Hessian.
        """
        rows = as_multiplied(rows)
        if size is not None:
            huge = size > HUGE * size.median()
            self._huge.append(rows[huge])
            rows, drift = rows[~huge], drift[~huge]
        first = len(rows) - len(rows) // HELD_OUT
        self._fitted.add(rows[:first], drift[:first])
        self._held_out.add(rows[first:], drift[first:])

    def target(self) -> Target:
        """Return the target; nothing can be added any more.

        Raises:
            torch.linalg.LinAlgError: the Hessian is not positive definite, or not finite.
        """
        fitted, held_out = self._fitted, self._held_out
        give_back_memory()  # of the inputs: the peak is here
        fitted.complete()
        held_out.complete()
        correction = fitted.correction()
        correction *= self._share(correction)
        fitted.gram += held_out.gram
        tokens = fitted.tokens + held_out.tokens
        del self._held_out, held_out  # each is as large as a Hessian
        for rows in self._huge:
            fitted.gram.addmm_(rows.t(), rows)
            tokens += len(rows)
        return Target(Hessian.of(fitted.gram.div_(tokens), tokens), correction, self.shared)

    def _share(self, change: Tensor) -> float:
        """Return the share of the fitted correction that leaves the least of the held-out drift."""
        drift = self._held_out.cross
        with bfloat16_products():
            if self._weights is not None:
                change, drift = self._weights @ change, self._weights @ drift
            gain, cost = total(change * drift), self._held_out.squares(change)
        return min(max(gain / max(cost, LEAST), 0.0), 1.0)


def target(
    pairs: Iterable[tuple[Inputs, Inputs]],
    weights: Sequence[Tensor],
    norm: Tensor | None = None,
    observe: Callable[[Tensor], None] = lambda _: None,
) -> Target:
    """Compute the target of a stage.

    Args:
        pairs: the stage's inputs in the quantized layers, and in the float ones at the same tokens.
        weights: the stage's weights, float32 [N, K].
        norm: the weight of the norm behind it (``Stage.norm``).
        observe: called with the inputs of the quantized layers, as the Hessian weighs them.

    Raises:
        torch.linalg.LinAlgError: the Hessian is not positive definite, or not finite.
    """
    several = len(weights) > 1
    fit = Fit(weights[0].shape[1], None if several else len(weights[0]), torch.cat(list(weights)) if several else None)
    with bfloat16_products():
        for quantized, original in pairs:
            rows, drift, size = quantized.rows, original.rows - quantized.rows, None
            if not several:
                drift = drift @ weights[0].t()
                if quantized.residual is not None and original.residual is not None:
                    error = original.residual - quantized.residual
                    if norm is None:
                        drift += error
                        size = _size(original.residual)
                    else:
                        output = _size(original.rows @ weights[0].t())[:, None]
                        rows, drift = rows / output, drift / output + error * _inverse(norm)
            fit.add(rows, drift, size)
            observe(rows)
    return fit.target()


def _size(rows: Tensor) -> Tensor:
    """Return the root mean square of each row, [T]."""
    return rows.square().mean(-1).sqrt_().clamp_(min=LEAST)


def _inverse(norm: Tensor) -> Tensor:
    return torch.where(norm.abs() < SMALL * norm.abs().mean(), 0.0, 1 / norm)
