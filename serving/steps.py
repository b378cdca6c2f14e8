"""A call's texts in steps of a bounded size, so that calls take turns and a client that leaves ends the rest."""

from collections.abc import Callable, Generator, Iterator, Sequence
from typing import TypeVar

Result = TypeVar("Result")
Steps = Generator[None, None, Result]

MOST_TEXTS = 16
MOST_TOKENS = 4096
"""The most tokens of a step, padding included; a text that is longer has a step of its own."""


def batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Yield the positions of texts that are run together: of similar lengths, shortest first."""
    members: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda index: lengths[index]):
        if members and (len(members) == MOST_TEXTS or (len(members) + 1) * lengths[index] > MOST_TOKENS):
            yield members
            members = []
        members.append(index)
    yield members


def in_steps(lengths: Sequence[int], call: Callable[[list[int]], Sequence[Result]]) -> Steps[list[Result]]:
    """Return a result for each text, in their order.

    Args:
        lengths: the tokens of each text.
        call: returns the results of the texts at some positions.
    """
    found: dict[int, Result] = {}
    for members in batches(lengths):
        yield
        found.update(zip(members, call(members), strict=True))
    return [found[index] for index in range(len(lengths))]
