"""The limits of each precision, and the verdict that follows from them.

Up to the first number of a limit a copy is *faithful*, up to the second it has *drifted*, above it is *broken*.

The figures of a quantized copy are means over positions that differ a hundredfold, so that those of a few positions say
little. Whether such a copy has drifted is decided by the mean over all cases that read the same text at any
``--max-length``. A case alone decides it only if it exceeds the limit by more than chance explains.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

from ...artifact import FloatPrecision, Manifest, Precision
from ...errors import UsageError
from .result import STORED, VERDICTS, CaseResult, Figures, Finding, Limit, TensorError, Verdict

_CHOICE = "the source prefers its own choice by more than the noise of this precision"

ENOUGH = 16
"""Positions that a mean of a quantized copy must cover before its faithful limit applies."""

STANDARD_ERRORS = 3.0
"""Standard errors by which one case must exceed a faithful limit to decide."""

Standard = Precision | Literal["carried"]
"""What an artifact is judged as: its precision, or a quantized checkpoint whose codes were carried over."""

LIMITS: Mapping[Standard, tuple[Limit, ...]] = {
    "fp32": (
        Limit("relative_error", 1e-5, 1e-2, "the order of float32 sums; measured up to 3e-6 over 24 layers"),
        Limit("kl_mean", 1e-6, 1e-3, "the divergence itself is computed to 1e-7"),
        Limit("flips", 0.0, 0.05, _CHOICE),
    ),
    "fp16": (
        Limit(
            "relative_error",
            1e-2,
            1e-1,
            "11 bits: half a unit in the last place at each multiplication, layer by layer",
        ),
        Limit("kl_mean", 1e-3, 2e-2, "the effect of that rounding on the probabilities"),
        Limit("flips", 0.0, 0.1, _CHOICE),
    ),
    "bf16": (
        Limit("relative_error", 8e-2, 4e-1, "8 bits: eight times the rounding of fp16"),
        Limit("kl_mean", 1e-2, 2e-1, "the effect of that rounding on the probabilities"),
        Limit("flips", 0.01, 0.2, _CHOICE),
    ),
    "int8": (
        Limit("relative_error", 5e-2, 3e-1, "blocks of 8 bits, weights and activations", ENOUGH),
        Limit("kl_mean", 3e-3, 5e-2, "a real 0.5B has 0.0005", ENOUGH),
        Limit("flips", 0.02, 0.1, "a real 0.5B has 0.01", ENOUGH),
    ),
    "int4": (
        Limit("relative_error", 2e-1, 8e-1, "blocks of 4 bits; at twice the error little of the model is left", ENOUGH),
        Limit("kl_mean", 2e-2, 5e-1, "a real 0.5B has 0.03 with the default mix, 0.07 when rounded", ENOUGH),
        Limit("flips", 0.05, 0.35, "a real 0.5B has 0.07 with the default mix, 0.12 when rounded", ENOUGH),
    ),
    "carried": (
        Limit(
            "relative_error", 5e-2, 8e-1, "the weights are the source's, code for code; activations have 8 bits", ENOUGH
        ),
        Limit(
            "kl_mean", 3e-3, 5e-1, "the effect of those activations; a real 0.5B from a GGUF file has 0.0007", ENOUGH
        ),
        Limit("flips", 0.02, 0.35, _CHOICE, ENOUGH),
    ),
}
"""``flips`` is a share of the positions."""

NOISE: Mapping[Standard, float] = {
    "fp32": 1e-4,
    "fp16": 2e-2,
    "bf16": 1.5e-1,
    "int8": 5e-2,
    "int4": 5e-2,
    "carried": 5e-2,
}
"""The difference between two logits that rounding alone can cause, in standard deviations of the logits: it separates
a near tie from a flip. For int8, int4 and carried codes it is that of their int8 activations."""

FLOATS: Mapping[str, FloatPrecision] = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}
"""The precision that computes in each type of the activations."""

EDGE = "edge-"
"""How the names of cases begin that read a text across an edge of the attention."""

LAST_BIT = 2.0**-22
"""The relative error of float32 numbers that differ in their last bits alone."""

ROUNDED_SCALES = 2.0**-11
"""The error of a carried weight whose scales were rounded to float16."""


def standard_of(manifest: Manifest) -> Standard:
    """Return what an artifact is judged as.

    Codes that were carried over are the source's own weights, so that only the activations are rounded: to 8 bits, or
    where MatMulNBits takes float ones (``accuracy_level`` 0) to their type alone.
    """
    quantized = [entry.quantization for entry in manifest.tensors.values() if entry.quantization is not None]
    if not quantized or any(one.method != STORED or one.error > ROUNDED_SCALES for one in quantized):
        return manifest.precision
    if manifest.target == "ort" and all(one.accuracy_level == 0 for one in quantized):
        exact = all(one.error < LAST_BIT for one in quantized)
        return FLOATS[manifest.model.cache_dtype] if exact else "fp16"
    return "carried"


def limits_for(standard: Standard, given: Mapping[str, float]) -> tuple[Limit, ...]:
    """Return the limits of a standard, with those of ``given`` tightened: above such a number a copy is broken.

    Raises:
        UsageError: a measure is unknown, or a limit is below 0.
    """
    known = {limit.measure: limit for limit in LIMITS[standard]}
    for measure, value in given.items():
        if measure not in known:
            raise UsageError(f"--limit {measure}: unknown measure; choose one of {', '.join(known)}")
        if not 0 <= value < float("inf"):
            raise UsageError(f"--limit {measure}={value:g}: a limit is a number of 0 or more")
        known[measure] = replace(
            known[measure],
            faithful=min(value, known[measure].faithful),
            drifted=value,
            reason="given on the command line",
        )
    return tuple(known.values())


def judge(
    figures: Figures, limits: tuple[Limit, ...], standard_errors: float = STANDARD_ERRORS
) -> tuple[Verdict, tuple[str, ...]]:
    """Return the verdict on figures, and a reason for each limit that they exceed.

    Args:
        standard_errors: how many standard errors a mean must be above a faithful limit.
    """
    highest, reasons = 0, list[str]()
    for limit in limits:
        value = measure(figures, limit.measure)
        if value is None:
            continue
        level = 2 if value > limit.drifted else 0
        if not level and figures.positions >= limit.positions:
            doubt = standard_errors * figures.standard_errors.get(limit.measure, 0.0) if limit.positions else 0.0
            level = int(value - doubt > limit.faithful)
        if level:
            bound = (limit.faithful, limit.drifted)[level - 1]
            reasons.append(f"{limit.measure} is {value:.3g}, above {bound:.3g}")
        highest = max(highest, level)
    return VERDICTS[highest], tuple(reasons)


def pooled(cases: Sequence[Figures]) -> Figures | None:
    """Return the figures of several cases together, as far as they have limits; None for no cases."""
    positions = sum(case.positions for case in cases)
    if not positions:
        return None
    divergent = [(case.positions, case.kl_mean) for case in cases if case.kl_mean is not None]
    return Figures(
        positions=positions,
        max_difference=max(case.max_difference for case in cases),
        mean_difference=sum(case.positions * case.mean_difference for case in cases) / positions,
        relative_error=math.sqrt(sum(case.positions * case.relative_error**2 for case in cases) / positions),
        flips=sum(case.flips for case in cases),
        kl_mean=sum(n * kl for n, kl in divergent) / sum(n for n, _ in divergent) if divergent else None,
    )


def measure(figures: Figures, name: str) -> float | None:
    """Return a measure that has limits; ``flips`` as a share of the positions."""
    if name == "flips":
        return figures.flips / max(1, figures.positions)
    found: float | None = getattr(figures, name)
    return found


def worst(verdicts: list[Verdict]) -> Verdict:
    """Return the worst verdict; faithful if there are no verdicts."""
    return VERDICTS[max(map(VERDICTS.index, verdicts), default=0)]


def overall(
    cases: tuple[CaseResult, ...],
    findings: tuple[Finding, ...],
    tensors: tuple[TensorError, ...],
    limits: tuple[Limit, ...],
) -> tuple[Verdict, tuple[str, ...]]:
    """Return the verdict on the artifact, the worst of its parts, and the reasons, causes first.

    A weight that differs from the source's breaks a copy, whatever its outputs are. ``EDGE`` cases are not pooled: how
    many there are depends on the longest text that is tried.
    """
    faults = [tensor for tensor in tensors if tensor.fault is not None]
    together = pooled([case.figures for case in cases if case.figures and not case.name.startswith(EDGE)])
    verdict, exceeded = judge(together, limits, 0.0) if together else ("faithful", ())
    verdicts: list[Verdict] = [finding.verdict for finding in findings]
    verdicts.extend(case.verdict for case in cases)
    verdicts.append(verdict)
    if faults:
        verdicts.append("broken")
    reasons = [f"{finding.module}: {finding.cause}" for finding in findings]
    reasons += [f"{tensor.name}: {tensor.fault}" for tensor in faults]
    reasons += [f"{case.name}: {reason}" for case in cases if case.verdict != "faithful" for reason in case.reasons]
    known = {reason.partition(" ")[0] for case in cases for reason in case.reasons}
    reasons += [f"all cases together: {reason}" for reason in exceeded if reason.partition(" ")[0] not in known]
    return worst(verdicts), tuple(dict.fromkeys(reasons))
