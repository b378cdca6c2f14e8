"""The evidence that a stored weight was not made from its source as the manifest says."""

from ...artifact import TensorEntry
from .comparison import Comparison
from .expected import Expected
from .reading.layouts import Weight

RECORDED = 1e-5
"""The relative difference that an error may have from the one in the manifest; both are sums of the same numbers."""

UNRELATED = 0.9
"""The relative error from which a weight is not the source's, whatever the manifest says; that of zeros is 1."""

SHIFTED = 0.5
"""The share of blocks with an error in the same direction from which that is not chance."""


def find_evidence(
    entry: TensorEntry, weight: Weight, expected: Expected, comparison: Comparison, *, divided: bool
) -> str | None:
    """Return what cannot be in a weight that was made from its source; None where there is nothing.

    Args:
        divided: the weight, if it is a vector with folded scales, was divided by them.
    """
    if comparison.not_finite.count:
        return "it holds NaN or infinite values"
    if entry.quantization is None or weight.block_size is None:
        return _float_evidence(expected, comparison, divided=divided)
    error, recorded = comparison.relative_error, entry.quantization
    block_size = min(recorded.block_size, expected.shape[1])  # a longer block is the whole row
    if (weight.bits, min(weight.block_size, expected.shape[1])) != (recorded.bits, block_size):
        return (
            f"the graph reads it in blocks of {weight.block_size} with {weight.bits} bits, and the manifest says "
            f"{recorded.block_size} with {recorded.bits}"
        )
    if abs(error - recorded.error) > _allowed_difference(recorded.error, expected):
        return f"its relative error is {error:.4g}, and the manifest recorded {recorded.error:.4g}"
    if error > UNRELATED:
        return f"its relative error is {error:.3g}"
    if comparison.opposite.count:
        return f"{comparison.opposite.count:,} of its {comparison.blocks:,} blocks have the opposite direction"
    if comparison.not_nearest.count:
        return f"{comparison.not_nearest.count:,} of its codes are not the nearest to the source's numbers"
    if max(comparison.above.count, comparison.below.count) > SHIFTED * comparison.blocks:
        return "most of its blocks are off by more than half a step in the same direction"
    return None


def _float_evidence(expected: Expected, comparison: Comparison, *, divided: bool) -> str | None:
    error = comparison.relative_error
    if expected.is_scaled and not expected.is_vector:
        limit = 4 * max(expected.uncertainty, 2.0**-23)
        return None if error <= limit else f"its relative error is {error:.3g}"
    if comparison.same or (expected.is_scaled and expected.is_vector and divided):
        return None
    return f"{comparison.different.count:,} of its numbers are not the source's, a relative error of {error:.3g}"


def _allowed_difference(recorded: float, expected: Expected) -> float:
    """Return how far an error may be from the recorded one: more where folded scales are uncertain."""
    allowed = RECORDED * recorded + 1e-7
    uncertainty = expected.uncertainty
    if uncertainty:
        allowed += 2 * uncertainty**2 / max(recorded, uncertainty) + 2 * uncertainty * 2.0**-11
        allowed += recorded * (2e-3 + 2 / min(expected.shape)) if uncertainty > 2.0**-20 else 0.0
    return allowed
