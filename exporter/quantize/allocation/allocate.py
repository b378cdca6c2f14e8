"""Spending bits where they help: from each weight's damage and bytes in every format to one format for each.

Starting from the cheapest formats, the step that saves most damage a byte is taken again and again; steps that the
next larger one outdoes are left out (the lower convex hull), which makes the result the best there is for the size at
which it stops (Everett, 1963).
"""

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

Format = TypeVar("Format")


@dataclass(frozen=True)
class Choice(Generic[Format]):
    """One weight in one format: what it costs and what it damages."""

    format: Format
    bytes: int
    damage: float


def allocate(
    choices: Mapping[str, Sequence[Choice[Format]]], *, size: int | None = None, damage: float | None = None
) -> dict[str, Choice[Format]]:
    """One choice for each weight: the least damage within ``size`` bytes, or the fewest bytes with at most ``damage``.

    Where even the cheapest formats take more than ``size``, they are what is returned; where even the best do more than
    ``damage``, those. The caller compares.
    """
    hulls = {name: _hull(options) for name, options in choices.items()}
    taken = dict.fromkeys(hulls, 0)
    total = sum(hull[0].bytes for hull in hulls.values())
    harm = sum(hull[0].damage for hull in hulls.values())
    steps: list[tuple[float, str]] = []
    for name in hulls:
        _offer(steps, name, hulls[name], 0)
    while steps and (damage is None or harm > damage):
        _, name = heapq.heappop(steps)
        now, then = hulls[name][taken[name] : taken[name] + 2]
        if size is not None and total + then.bytes - now.bytes > size:
            continue  # too large a step; smaller ones of other weights may still fit
        total += then.bytes - now.bytes
        harm += then.damage - now.damage
        taken[name] += 1
        _offer(steps, name, hulls[name], taken[name])
    return {name: hulls[name][index] for name, index in taken.items()}


def _offer(steps: list[tuple[float, str]], name: str, hull: Sequence[Choice[Format]], index: int) -> None:
    if index + 1 < len(hull):
        now, then = hull[index : index + 2]
        heapq.heappush(steps, ((then.damage - now.damage) / (then.bytes - now.bytes), name))


def _hull(options: Sequence[Choice[Format]]) -> list[Choice[Format]]:
    """The options on the lower convex hull of damage over bytes, the cheapest first."""
    hull: list[Choice[Format]] = []
    for option in sorted(options, key=lambda o: (o.bytes, o.damage)):
        if hull and option.damage >= hull[-1].damage:
            continue
        while len(hull) > 1 and _gain(hull[-2], hull[-1]) <= _gain(hull[-1], option):
            hull.pop()
        hull.append(option)
    return hull


def _gain(cheaper: Choice[Format], dearer: Choice[Format]) -> float:
    return (cheaper.damage - dearer.damage) / (dearer.bytes - cheaper.bytes)
