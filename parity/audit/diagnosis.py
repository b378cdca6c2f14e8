"""The cause of a stored weight's mismatch; looked for only where there is one."""

from dataclasses import dataclass

from ...artifact import TensorEntry
from ...models.checkpoint import Checkpoint
from .block_hypotheses import diagnose_blocks
from .comparison import Comparison
from .expected import Expected
from .hypotheses import diagnose_rows
from .reading.layouts import Weight
from .reading.stored import FloatWeight

WRONG_ROW = 0.5
"""The relative error from which a row of a quantized weight is not the expected one."""


@dataclass(frozen=True)
class WeightMismatch:
    """A weight that was not made from its source as the manifest says; ``evidence`` is what shows that."""

    name: str
    entry: TensorEntry
    weight: Weight
    expected: Expected
    comparison: Comparison
    evidence: str


def diagnose(mismatch: WeightMismatch, checkpoint: Checkpoint) -> str:
    """Return the likeliest cause, followed by the evidence."""
    cause = _cause(mismatch, checkpoint)
    return mismatch.evidence if cause is None else f"{cause}; {mismatch.evidence}"


def _cause(mismatch: WeightMismatch, checkpoint: Checkpoint) -> str | None:
    comparison, expected, weight = mismatch.comparison, mismatch.expected, mismatch.weight
    if (first := comparison.not_finite).count:
        position = f"{expected.describe_row(first.row)}, column {first.column:,}"
        return f"{first.count:,} of its {expected.elements:,} numbers, the first in {position}, are NaN or infinite"
    if not comparison.stored.any() and comparison.expected.any():
        rms = (comparison.expected.sum().item() / expected.elements) ** 0.5
        subject = "the bias" if mismatch.name.endswith(".bias") else "it"
        return f"{subject} is all zeros, and the source's numbers have a root mean square of {rms:.3g}"
    if isinstance(weight, FloatWeight):
        wrong = comparison.squared_error > 0
    else:
        cause = diagnose_blocks(weight, expected, mismatch.entry, comparison)
        if cause is not None:
            return cause
        wrong = comparison.squared_error > WRONG_ROW**2 * comparison.expected
    rows = wrong.nonzero().flatten().tolist()
    cause = diagnose_rows(weight, expected, rows, checkpoint) if rows else None
    if cause is None and comparison.worst > 0:
        row, column = expected.describe_row(comparison.worst_row), comparison.worst_column
        return f"the worst block, {row} from column {column:,} on, has a relative error of {comparison.worst:.3g}"
    if cause is None and (first := comparison.different).count:
        return f"the first that differs is in {expected.describe_row(first.row)}, column {first.column:,}"
    return cause
