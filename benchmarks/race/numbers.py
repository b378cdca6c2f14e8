"""Medians over rounds, and ratios of those who ran in the same round."""

import statistics
from collections.abc import Sequence
from typing import Any

from .records import Record


def value(record: Record, path: str) -> float | None:
    """A figure by its path, ``first.512``; None where the record has none."""
    found: Any = record
    for part in path.split("."):
        if not isinstance(found, dict) or part not in found:
            return None
        found = found[part]
    return float(found)


def middle(records: Sequence[Record], path: str) -> float | None:
    """The median over the rounds."""
    found = [one for record in records if (one := value(record, path)) is not None]
    return statistics.median(found) if found else None


def ratio(numerator: Sequence[Record], denominator: Sequence[Record], path: str, other: str = "") -> float | None:
    """The median, over the rounds that both took part in, of the quotient of a figure; ``other`` is the divisor's."""
    below = {record["round"]: value(record, other or path) for record in denominator}
    quotients = [
        above / under
        for record in numerator
        if (above := value(record, path)) is not None and (under := below.get(record["round"]))
    ]
    return statistics.median(quotients) if quotients else None


def spread(records: Sequence[Record], path: str) -> tuple[float, float] | None:
    """The smallest and the largest over the rounds."""
    found = [one for record in records if (one := value(record, path)) is not None]
    return (min(found), max(found)) if found else None


def shown(number: float | None, style: str, factor: float = 1.0) -> str:
    """A number in a cell, or nothing."""
    return "" if number is None else format(number * factor, style)


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """A table; the first ``left`` columns are words, the others numbers."""
    rule = ["---" if place < left else "---:" for place in range(len(head))]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, rule, *rows))
