"""What a device makes of an artifact: the rules that it does not satisfy, most serious first."""

from collections.abc import Iterable
from dataclasses import dataclass

from .expert_rules import EXPERT_RULES, SEPARATE_RULES, Experts, SeparateExperts
from .presets import DeviceName
from .rules import (
    ATTENTION_RULES,
    LOOKUP_RULES,
    MATMUL_RULES,
    WHOLE_RULES,
    Attention,
    Effect,
    Lookup,
    MatMul,
    Rules,
    Subject,
    Whole,
)

SEVERITY: tuple[Effect, ...] = ("fails", "wrong", "host", "partly", "slow")
REFUSED: tuple[Effect, ...] = ("fails", "wrong", "host")
"""The effects with which nothing is exported for a device."""


@dataclass(frozen=True)
class Finding:
    """A rule that does not hold: for ``count`` nodes, the first of which it speaks of."""

    effect: Effect
    reason: str
    remedy: str
    source: str
    count: int = 1


def findings(
    device: DeviceName,
    whole: Whole | None = None,
    matmuls: Iterable[MatMul] = (),
    attentions: Iterable[Attention] = (),
    lookups: Iterable[Lookup] = (),
    experts: Iterable[Experts] = (),
    separate: Iterable[SeparateExperts] = (),
) -> list[Finding]:
    """Return what the device does not take, or not well; a rule is listed once for all nodes that break it."""
    found = [
        *_broken(WHOLE_RULES[device], () if whole is None else (whole,)),
        *_broken(MATMUL_RULES[device], matmuls),
        *_broken(ATTENTION_RULES[device], attentions),
        *_broken(LOOKUP_RULES[device], lookups),
        *_broken(EXPERT_RULES[device], experts),
        *_broken(SEPARATE_RULES[device], separate),
    ]
    return sorted(found, key=lambda finding: SEVERITY.index(finding.effect))


def _broken(rules: Rules[Subject], subjects: Iterable[Subject]) -> list[Finding]:
    given = list(subjects)
    found = []
    for rule in rules:
        broken = [subject for subject in given if not rule.holds(subject)]
        if broken:
            found.append(Finding(rule.effect, rule.says(broken[0]), rule.remedy, rule.source, len(broken)))
    return found
