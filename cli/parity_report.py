"""The report of a parity check, as printed in a terminal."""

from pathlib import Path
from typing import TYPE_CHECKING

from .show import echo, print_facts

if TYPE_CHECKING:
    from ..parity.report.report import Report
    from ..parity.report.result import CaseResult

SHOWN_REASONS = 8
"""Reasons that are printed; the JSON and HTML reports have all."""

MEANINGS = {
    "faithful": "the same model, up to the rounding of its precision",
    "drifted": "a noticeable difference, within the limits of its precision",
    "broken": "not the same model as its source",
}


def print_report(report: "Report", html: Path | None) -> None:
    """Print the verdict, its reasons and the cases.

    Args:
        report: the result of the check.
        html: where the HTML report was written, if it was.
    """
    facts = [("verdict", f"{report.verdict}: {MEANINGS[report.verdict]}")]
    if report.verdict != "faithful":
        reasons = list(report.reasons)
        if len(reasons) > SHOWN_REASONS:
            reasons[SHOWN_REASONS:] = [f"and {len(reasons) - SHOWN_REASONS} more: see --json or --html"]
        facts += [("" if index else "because", reason) for index, reason in enumerate(reasons)]
    facts += [("" if index else "compared", _case(case)) for index, case in enumerate(report.cases)]
    if report.carried is not None:
        facts.append(("weights", str(report.carried)))
    agreed = [c.agreed == c.tokens for c in report.continuations]
    if agreed:
        facts.append(("greedy", f"{sum(agreed)} of {len(agreed)} continuations equal the source's to the last token"))
    for reference in report.references:
        facts.append(
            (
                reference.name,
                f"from the source {reference.source.max_difference:.2g}, to the artifact "
                f"{reference.artifact.max_difference:.2g} (largest difference of a logit)",
            )
        )
    facts += [("" if index else "not compared", name) for index, name in enumerate(report.not_compared)]
    facts.append(("time", f"{report.seconds:.1f} s"))
    if html is not None:
        facts.append(("report", str(html)))
    print_facts(facts)


def _case(case: "CaseResult") -> str:
    if case.figures is None:
        return f"{case.name}: refused, {'as expected' if case.verdict == 'faithful' else case.refused}"
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
    """Print a note on standard error: nothing failed, but the user should know."""
    echo(f"Note: {message}", err=True)
