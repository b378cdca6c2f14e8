"""The reasons below the verdict: each once, shortened, findings before exceeded limits."""

import re

from ..report.report import Report
from ..report.result import TensorError

_EXCEEDED = re.compile(r"(.+?): (\w+) is \S+, above \S+", re.DOTALL)


def reasons(report: Report) -> list[str]:
    """Return findings and faulty weights, then the first case of each measure that exceeds its limit.

    A finding's cause is cut at the first "; ": what follows are details.
    """
    findings = {f"{f.module}: {f.cause}": f"{f.module}: {f.cause.partition('; ')[0]}" for f in report.findings}
    weights = {f"{tensor.name}: {tensor.fault}" for tensor in report.tensors if tensor.fault}
    unexplained = {f"{tensor.name}: {tensor.fault}" for tensor in faulty(report)}
    causes = [findings.get(text, text) for text in report.reasons if text in findings or text in unexplained]
    others = [text for text in report.reasons if text not in findings and text not in weights]
    return list(dict.fromkeys([*causes, *_limits(others)]))


def faulty(report: Report) -> list[TensorError]:
    """Return the weights with a fault that no finding names as its cause."""
    causes = [finding.cause for finding in report.findings]
    return [t for t in report.tensors if t.fault and not any(t.fault in cause for cause in causes)]


def _limits(texts: list[str]) -> list[str]:
    cases: dict[str, dict[str, str]] = {}
    for text in texts:
        found = _EXCEEDED.fullmatch(text)
        measure, case = (found[2], found[1]) if found else (text, "")
        cases.setdefault(measure, {}).setdefault(case, text)
    return [first + _as_well(len(more)) for first, *more in (list(by.values()) for by in cases.values())]


def _as_well(count: int) -> str:
    return f"; also in {count} other {'case' if count == 1 else 'cases'}" if count else ""
