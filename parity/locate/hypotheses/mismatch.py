"""A place that is off, what its cause may be, and whether a supposed cause explains the numbers."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...models.config import ModelConfig
from .batches import Step, relative_error
from .places import HIDDEN, Kind, Place

WHAT: Mapping[Kind, str] = {
    "norm": "the norm",
    "projection": "the product",
    "attention": "the attention operator",
    "activation": "the activation",
    "residual": "the residual sum",
}


@dataclass(frozen=True, eq=False)
class Symptom:
    """A place that is off: ``found`` by the artifact where the source has ``wanted``, from the same inputs.

    ``ratios`` are the scales, by key and channel, that a quantization has folded into the artifact's numbers.
    ``sibling`` reads the same place's weight in another layer, and ``path`` names that.
    """

    config: ModelConfig
    layer: int
    place: Place
    module: nn.Module
    step: Step
    wanted: Tensor
    found: Tensor
    error: float
    budget: float
    ratios: Mapping[str, Tensor]
    sibling: Callable[[int], Tensor]
    path: Callable[[int], str]

    def value(self, key: str) -> Tensor:
        """What the source has at a place of the layer, as the artifact was given it."""
        value = self.step.hidden if key == HIDDEN else self.step.values[key]
        return value * self.ratios[key] if key in self.ratios else value

    def off(self, candidate: Tensor) -> float:
        """How far the artifact is from what a mistake would have given."""
        return relative_error(candidate, self.found, self.step.batch.new)


@dataclass(frozen=True)
class Cause:
    """In words; ``rounding`` where the function is the source's and only its precision is not, ``general`` where they
    say no more than that something is off. ``key`` is the place to blame, if it is another one."""

    words: str
    rounding: bool = False
    key: str | None = None
    general: bool = False


Candidate = tuple[Cause | str, Tensor]
"""A mistake, and what it would have given."""


def plausible(candidate: float, error: float, budget: float) -> bool:
    """Whether a candidate that is still off by so much explains the error."""
    return candidate <= min(2 * budget, error / 5)


def scaled(wanted: Tensor, found: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Mistakes that any operator can have."""
    yield "its output is all zeros", torch.zeros_like(wanted)
    if wanted.shape != found.shape:
        return
    energy = wanted.double().square().sum().clamp(min=1e-30)
    factor = float((wanted.double() * found.double()).sum() / energy)
    if math.isfinite(factor):
        flipped = abs(factor + 1) < 1e-3
        yield (
            "its sign is flipped" if flipped else f"its output is {factor:.4g} times what it should be",
            wanted * factor,
        )


def unexplained(what: str, wanted: Tensor, found: Tensor, error: float, budget: float) -> Cause:
    """What can be said where none of the mistakes explains it."""
    if wanted.shape != found.shape:
        return Cause(f"its output has shape {tuple(found.shape)}, expected {tuple(wanted.shape)}", general=True)
    if not torch.isfinite(found).all():
        largest = float(wanted.abs().max())
        return Cause(f"its output has NaN or infinite values; the source's largest is {largest:.4g}", general=True)
    rounding = error <= 3 * budget
    why = "more than rounding makes" if rounding else "none of the usual mistakes explains it"
    return Cause(f"{what} differs by {error:.2g} of its size: {why}", rounding=rounding, general=True)


def matched(wanted: Tensor, found: Tensor) -> list[int] | None:
    """Which of the wanted parts [..., N, E] each found one is nearest to; None where they are in their own order, or
    in none."""
    if wanted.shape != found.shape:
        return None
    one, other = (t.movedim(-2, 0).flatten(1).double() for t in (wanted, found))
    order: list[int] = torch.cdist(other, one).argmin(-1).tolist()
    return order if sorted(order) == list(range(len(order))) and order != sorted(order) else None


def split(x: Tensor, dim: int) -> Tensor:
    """[..., n * dim] as [..., n, dim]."""
    return x.reshape(*x.shape[:-1], -1, dim)


def listed(order: list[int]) -> str:
    return ", ".join(map(str, order[:8])) + (", ..." if len(order) > 8 else "")
