"""Medians over rounds, ratios within rounds, and their Markdown."""

import statistics
from collections.abc import Sequence
from typing import Any

from ..harness.records import Record


def value(record: Record, path: str) -> float | None:
    """Return a figure by its path, as ``first.512``; None if the record has no such figure."""
    found: Any = record
    for part in path.split("."):
        if not isinstance(found, dict) or part not in found:
            return None
        found = found[part]
    return float(found)


def middle(records: Sequence[Record], path: str) -> float | None:
    """Return the median over the rounds; None if no round has the figure."""
    found = [one for record in records if (one := value(record, path)) is not None]
    return statistics.median(found) if found else None


def ratio(numerator: Sequence[Record], denominator: Sequence[Record], path: str, other: str = "") -> float | None:
    """Return the median, over the rounds that both have, of a figure's ratio; ``other`` is the divisor's path."""
    below = {record["round"]: value(record, other or path) for record in denominator}
    quotients = [
        above / under
        for record in numerator
        if (above := value(record, path)) is not None and (under := below.get(record["round"]))
    ]
    return statistics.median(quotients) if quotients else None


def spread(records: Sequence[Record], path: str) -> tuple[float, float] | None:
    """Return the smallest and the largest over the rounds."""
    found = [one for record in records if (one := value(record, path)) is not None]
    return (min(found), max(found)) if found else None


def shown(number: float | None, style: str, factor: float = 1.0) -> str:
    """Format a number for a cell; None gives an empty cell."""
    return "" if number is None else format(number * factor, style)


def percent(share: float | None) -> str:
    return "" if share is None else f"{share:.0%}".replace("%", " %")


def kl(value: float) -> str:
    """Format a KL divergence with three digits, or five where it is small."""
    return f"{value:.3f}" if value >= 0.01 else f"{value:.5f}"


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Return a table; the first ``left`` columns are words, aligned left, the others numbers."""
    rule = ["---" if column < left else "---:" for column in range(len(head))]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, rule, *rows))
