"""Why a stored weight is not what it should be, in words; looked into only where something is wrong."""

from dataclasses import dataclass

from ...artifact import TensorEntry
from ...models.checkpoint import Checkpoint
from .block_hypotheses import blocks_at_fault
from .comparison import Comparison
from .expected import Expected
from .hypotheses import likeness
from .layouts import Weight
from .stored import FloatWeight

WRONG_ROW = 0.5
"""The relative error from which a row of a quantized weight is another row."""


@dataclass(frozen=True)
class Suspect:
    """A weight that cannot have come from its source as the manifest says; ``suspicion`` is what gave it away."""

    name: str
    entry: TensorEntry
    weight: Weight
    expected: Expected
    found: Comparison
    suspicion: str

    @property
    def numel(self) -> int:
        return self.expected.shape[0] * self.expected.shape[1]


def explain(suspect: Suspect, checkpoint: Checkpoint) -> str:
    """The likeliest cause, and the figures that it explains."""
    cause = _cause(suspect, checkpoint)
    return suspect.suspicion if cause is None else f"{cause}; {suspect.suspicion}"


def _cause(suspect: Suspect, checkpoint: Checkpoint) -> str | None:
    found, expected, weight = suspect.found, suspect.expected, suspect.weight
    if (place := found.not_finite).count:
        where = f"{expected.named(place.row)}, column {place.column:,}"
        return f"{place.count:,} of its {suspect.numel:,} numbers, the first in {where}, are NaN or infinite"
    if not found.stored.any() and found.power.any():
        rms = (found.power.sum().item() / suspect.numel) ** 0.5
        subject = "the bias" if suspect.name.endswith(".bias") else "it"
        return f"{subject} is all zeros, and the source's numbers have a root mean square of {rms:.3g}"
    if isinstance(weight, FloatWeight):
        wrong = found.error > 0
    else:
        cause = blocks_at_fault(weight, expected, suspect.entry, found)
        if cause is not None:
            return cause
        wrong = found.error > WRONG_ROW**2 * found.power
    rows = wrong.nonzero().flatten().tolist()
    cause = likeness(weight, expected, rows, checkpoint) if rows else None
    if cause is None and found.worst > 0:
        row, column = found.worst_row, found.worst_column
        return f"the worst block, {expected.named(row)} from column {column:,} on, has an error of {found.worst:.3g}"
    if cause is None and found.different.count:
        return f"the first that differs is {expected.named(found.different.row)}, column {found.different.column:,}"
    return cause
