"""A tap whose activation differs from the source's, and the test of a hypothesis against it."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor, nn

from ....models.config import ModelConfig
from ....models.quantized.weights import BlockGrid
from ..budgets import relative_error
from ..folded_scales import FoldedScales
from ..source_run import LayerRun
from ..taps import Kind, Tap

OPERATORS: Mapping[Kind, str] = {
    "norm": "the norm",
    "projection": "the projection",
    "attention": "the attention operator",
    "activation": "the activation function",
    "mixture": "the mixture of experts",
    "residual": "the residual sum",
}


@dataclass(frozen=True, eq=False)
class Mismatch:
    """A tap at which the artifact, given the source's inputs, computes ``actual`` and the source ``expected``.

    Args:
        folded: the scales that a quantization method folded into the layer.
        weight_of_layer: reads the weight of the same tap in another layer.
        path_in_layer: returns the module path of the same tap in another layer.
        grid: the codes that the checkpoint stores for the tap's weight; None where it has none.
    """

    config: ModelConfig
    layer: int
    tap: Tap
    module: nn.Module
    layer_run: LayerRun
    expected: Tensor
    actual: Tensor
    error: float
    budget: float
    folded: FoldedScales
    weight_of_layer: Callable[[int], Tensor]
    path_in_layer: Callable[[int], str]
    grid: BlockGrid | None = None

    def activation(self, key: str) -> Tensor:
        """Return the activation of a tap of the layer that the artifact was given."""
        return self.folded.activation(key, self.layer_run)

    def error_under(self, hypothesis: Tensor) -> float:
        """Return the artifact's error relative to what a mistake would have computed."""
        return relative_error(hypothesis, self.actual, self.layer_run.scenario.unpadded)


@dataclass(frozen=True)
class Cause:
    """The cause of an error.

    Args:
        rounding: the artifact computes the source's function, with too little precision.
        tap: the key of the tap at fault, where it is another one than the tap that differs.
        general: the text says only that there is a difference.
    """

    text: str
    rounding: bool = False
    tap: str | None = None
    general: bool = False


Hypothesis = tuple[Cause | str, Tensor]
"""A usual mistake, and the activation that it would have computed."""


def explains(remaining: float, error: float, budget: float) -> bool:
    """Check that a hypothesis explains an error, given the error that remains under it."""
    return remaining <= min(2 * budget, error / 5)


def first_cause(
    hypotheses: Iterable[Hypothesis],
    expected: Tensor,
    actual: Tensor,
    budget: float,
    mask: Tensor | None,
) -> Cause | None:
    """Return the cause of the first hypothesis that explains the error; those that fit any operator come last."""
    error = relative_error(expected, actual, mask)
    for cause, hypothesis in chain(hypotheses, scaling_hypotheses(expected, actual)):
        if hypothesis.shape == actual.shape and explains(relative_error(hypothesis, actual, mask), error, budget):
            return Cause(cause) if isinstance(cause, str) else cause
    return None


def scaling_hypotheses(expected: Tensor, actual: Tensor) -> Iterator[Hypothesis]:
    """Yield the mistakes that any operator can have."""
    yield "its output is all zeros", torch.zeros_like(expected)
    if expected.shape != actual.shape:
        return
    squares = expected.double().square().sum().clamp(min=1e-30)
    factor = float((expected.double() * actual.double()).sum() / squares)
    if math.isfinite(factor):
        flipped = abs(factor + 1) < 1e-3
        yield (
            "its sign is flipped" if flipped else f"its output is {factor:.4g} times the expected one",
            expected * factor,
        )


def unexplained(operator: str, expected: Tensor, actual: Tensor, error: float, budget: float) -> Cause:
    """Return a description of an error that no hypothesis explains."""
    if expected.shape != actual.shape:
        return Cause(f"its output has shape {tuple(actual.shape)}, expected {tuple(expected.shape)}", general=True)
    if not torch.isfinite(actual).all():
        largest = float(expected.abs().max())
        text = f"its output has NaN or infinite values, and the source's largest magnitude is {largest:.4g}"
        return Cause(text, general=True)
    rounding = error <= 3 * budget
    reason = "more than rounding explains" if rounding else "no known mistake explains it"
    return Cause(f"{operator} has a relative error of {error:.2g}: {reason}", rounding=rounding, general=True)


def find_permutation(expected: Tensor, actual: Tensor) -> list[int] | None:
    """Return for each actual part of [..., N, E] the index of the nearest expected one.

    None where the parts are in the expected order, or are not a permutation of the expected ones.
    """
    if expected.shape != actual.shape:
        return None
    ours, theirs = (t.movedim(-2, 0).flatten(1).double() for t in (actual, expected))
    order: list[int] = torch.cdist(ours, theirs).argmin(-1).tolist()
    return order if sorted(order) == list(range(len(order))) and order != sorted(order) else None


def permuted_heads(mismatch: Mismatch) -> Iterator[Hypothesis]:
    """Yield the expected output with its heads in another order, if the actual output looks like that."""
    head_dim = mismatch.config.head_dim
    heads = split_heads(mismatch.expected, head_dim)
    order = find_permutation(heads, split_heads(mismatch.actual, head_dim))
    if order is not None:
        yield f"its heads are in a different order ({format_order(order)})", heads[..., order, :].flatten(-2)


def split_heads(x: Tensor, head_dim: int) -> Tensor:
    """Return [..., n * E] as [..., n, E]."""
    return x.reshape(*x.shape[:-1], -1, head_dim)


def format_order(order: list[int]) -> str:
    return ", ".join(map(str, order[:8])) + (", ..." if len(order) > 8 else "")
