"""What each precision may do to a model: one table, and the verdict that follows from it.

Up to the first number a copy is *faithful*, up to the second it has *drifted*, and beyond it is *broken*.
"""

from collections.abc import Mapping
from dataclasses import replace

from ..artifact import Precision
from ..errors import UsageError
from .result import VERDICTS, Figures, Limit, Verdict

_ROUNDING = "what the order of float32 sums changes; measured up to 2e-6 over 24 layers"
_HALF = "float16 keeps 11 bits: half a unit in the last place at each product, summed up over the layers"
_BRAIN = "bfloat16 keeps 8 bits: eight times float16's rounding"
_INT8 = "8 bits in blocks of 32 with int8 activations; a real 0.5B has a KL of 0.0007 and 98.4 % of the top-1"
_INT4 = "4 bits; a real 0.5B has a KL of 0.03 with the default mix and 0.07 when rounded, 90 and 86 % of the top-1"

LIMITS: Mapping[Precision, tuple[Limit, ...]] = {
    "fp32": (
        Limit("relative_error", 1e-5, 1e-2, _ROUNDING),
        Limit("kl_mean", 1e-6, 1e-3, "the divergence itself is computed to 1e-7"),
        Limit("flips", 0.0, 0.01, "the source's choice is changed by more than rounding"),
    ),
    "fp16": (
        Limit("relative_error", 1e-2, 1e-1, _HALF),
        Limit("kl_mean", 1e-3, 2e-2, _HALF),
        Limit("flips", 0.0, 0.02, "the source's choice is changed by more than rounding"),
    ),
    "bf16": (
        Limit("relative_error", 8e-2, 4e-1, _BRAIN),
        Limit("kl_mean", 1e-2, 2e-1, _BRAIN),
        Limit("flips", 0.01, 0.1, "the source's choice is changed by more than rounding"),
    ),
    "int8": (
        Limit("kl_mean", 3e-3, 5e-2, _INT8),
        Limit("relative_error", 5e-2, 3e-1, _INT8),
        Limit("flips", 0.02, 0.1, _INT8),
    ),
    "int4": (
        Limit("kl_mean", 2e-2, 5e-1, _INT4),
        Limit("relative_error", 2e-1, 8e-1, _INT4),
        Limit("flips", 0.05, 0.35, _INT4),
    ),
}
"""``flips`` is a share of the positions."""

NOISE: Mapping[Precision, float] = {"fp32": 1e-4, "fp16": 2e-2, "bf16": 1.5e-1, "int8": 5e-2, "int4": 5e-2}
"""How far rounding alone can move one logit against another, in units of the logits' spread: what separates a near tie
from a flip. Of int8 and int4 it is that of their int8 activations."""


def limits_for(precision: Precision, given: Mapping[str, float]) -> tuple[Limit, ...]:
    """The table's limits, and what a user has tightened: beyond such a number a copy counts as broken.

    Raises:
        UsageError: a measure that there is not, or a limit below 0.
    """
    known = {limit.measure: limit for limit in LIMITS[precision]}
    for measure, value in given.items():
        if measure not in known:
            raise UsageError(f"--limit {measure}: no such measure; choose one of {', '.join(known)}")
        if not 0 <= value < float("inf"):
            raise UsageError(f"--limit {measure}={value:g}: a limit is a number of 0 or more")
        known[measure] = replace(
            known[measure],
            faithful=min(value, known[measure].faithful),
            drifted=value,
            reason="given on the command line",
        )
    return tuple(known.values())


def judge(figures: Figures, limits: tuple[Limit, ...]) -> tuple[Verdict, tuple[str, ...]]:
    """The verdict on a case, and a reason for each limit that it exceeds."""
    worst, reasons = 0, []
    for limit in limits:
        value = measure(figures, limit.measure)
        if value is None:
            continue
        level = (value > limit.faithful) + (value > limit.drifted)
        if level:
            bound = (limit.faithful, limit.drifted)[level - 1]
            reasons.append(f"{limit.measure} is {value:.3g}, above {bound:.3g}")
        worst = max(worst, level)
    return VERDICTS[worst], tuple(reasons)


def measure(figures: Figures, name: str) -> float | None:
    """One of the measures that have limits."""
    if name == "flips":
        return figures.flips / max(1, figures.positions)
    found: float | None = getattr(figures, name)
    return found


def worst(verdicts: list[Verdict]) -> Verdict:
    """The worst of several; of none, the best."""
    return max(verdicts, key=VERDICTS.index, default="faithful")
