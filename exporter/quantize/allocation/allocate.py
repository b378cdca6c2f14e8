"""The allocation of bits: from each weight's KL estimate and bytes in every format to one format for each weight.

It starts from the cheapest formats and repeatedly takes the step that reduces the estimate most per byte. Steps off the
lower convex hull are left out, which makes the result the best for the size at which it stops (Everett, 1963).
"""

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

Format = TypeVar("Format")


@dataclass(frozen=True)
class FormatCost(Generic[Format]):
    """The cost of one weight in one format: bytes, and estimated KL divergence."""

    format: Format
    bytes: int
    kl_estimate: float


def allocate(
    costs: Mapping[str, Sequence[FormatCost[Format]]], *, size: int | None = None, kl: float | None = None
) -> dict[str, FormatCost[Format]]:
    """Choose a format for each weight: the least estimate within ``size`` bytes, or the fewest bytes within ``kl``.

    Returns the cheapest formats where even they take more than ``size``, and the best where even they exceed ``kl``.
    The caller compares.
    """
    hulls = {name: _hull(options) for name, options in costs.items()}
    taken = dict.fromkeys(hulls, 0)
    total = sum(hull[0].bytes for hull in hulls.values())
    estimate = sum(hull[0].kl_estimate for hull in hulls.values())
    steps: list[tuple[float, str]] = []
    for name in hulls:
        _push_step(steps, name, hulls[name], 0)
    while steps and (kl is None or estimate > kl):
        _, name = heapq.heappop(steps)
        now, then = hulls[name][taken[name] : taken[name] + 2]
        if size is not None and total + then.bytes - now.bytes > size:
            continue  # too large a step; smaller ones of other weights may still fit
        total += then.bytes - now.bytes
        estimate += then.kl_estimate - now.kl_estimate
        taken[name] += 1
        _push_step(steps, name, hulls[name], taken[name])
    return {name: hulls[name][index] for name, index in taken.items()}


def _push_step(steps: list[tuple[float, str]], name: str, hull: Sequence[FormatCost[Format]], index: int) -> None:
    if index + 1 < len(hull):
        now, then = hull[index : index + 2]
        heapq.heappush(steps, ((then.kl_estimate - now.kl_estimate) / (then.bytes - now.bytes), name))


def _hull(options: Sequence[FormatCost[Format]]) -> list[FormatCost[Format]]:
    """Return the options on the lower convex hull of estimate over bytes, the cheapest first."""
    hull: list[FormatCost[Format]] = []
    for option in sorted(options, key=lambda o: (o.bytes, o.kl_estimate)):
        if hull and option.kl_estimate >= hull[-1].kl_estimate:
            continue
        while len(hull) > 1 and _gain(hull[-2], hull[-1]) <= _gain(hull[-1], option):
            hull.pop()
        hull.append(option)
    return hull


def _gain(cheaper: FormatCost[Format], dearer: FormatCost[Format]) -> float:
    return (cheaper.kl_estimate - dearer.kl_estimate) / (dearer.bytes - cheaper.bytes)
