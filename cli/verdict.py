"""How verbs print what a parity check found."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from .show import print_facts

if TYPE_CHECKING:
    from ..parity.report.report import Report
    from ..parity.report.result import CaseResult

SHOWN = 8
"""Reasons on a terminal; the report has all."""

MEANINGS = {
    "faithful": "the same model, to the rounding of its precision",
    "drifted": "within what its precision may do to a model, beyond what nobody would notice",
    "broken": "not the model that it was made from",
}


def print_report(report: "Report", html: Path | None) -> None:
    """The verdict, why, and the cases."""
    facts = [("verdict", f"{report.verdict}: {MEANINGS[report.verdict]}")]
    if report.verdict != "faithful":
        reasons = list(report.reasons)
        if len(reasons) > SHOWN:
            reasons[SHOWN:] = [f"and {len(reasons) - SHOWN} more: see --json or --html"]
        facts += [("" if index else "because", reason) for index, reason in enumerate(reasons)]
    facts += [("" if index else "compared", _case(case)) for index, case in enumerate(report.cases)]
    agreed = [c.agreed == c.tokens for c in report.continuations]
    if agreed:
        facts.append(("greedy", f"{sum(agreed)} of {len(agreed)} continuations are the source's to the last token"))
    for reference in report.references:
        facts.append(
            (
                reference.name,
                f"from the source {reference.source.max_difference:.2g}, to the artifact "
                f"{reference.artifact.max_difference:.2g} (largest difference of a logit)",
            )
        )
    facts += [("" if index else "left out", what) for index, what in enumerate(report.not_compared)]
    facts.append(("time", f"{report.seconds:.1f} s"))
    if html is not None:
        facts.append(("report", str(html)))
    print_facts(facts)


def _case(case: "CaseResult") -> str:
    if case.figures is None:
        return f"{case.name}: refused, {'as it should be' if case.verdict == 'faithful' else case.refused}"
    figures = case.figures
    parts = [f"largest difference {figures.max_difference:.2g}"]
    if figures.kl_mean is not None:
        parts.append(f"KL {max(figures.kl_mean, 0):.2g}")
    if figures.top1 is not None:
        parts.append(f"top-1 {100 * figures.top1:.1f} %")
    if figures.perplexity is not None and figures.source_perplexity is not None:
        parts.append(f"perplexity {figures.perplexity:.4g} ({figures.source_perplexity:.4g})")
    return f"{case.name}: {', '.join(parts)}"


def note(message: str) -> None:
    """What a person should know although nothing failed."""
    click.echo(f"Note: {message}", err=True)
