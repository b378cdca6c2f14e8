"""What stands under the verdict: each reason once, in short, causes before symptoms."""

import re

from ..report.report import Report
from ..report.result import TensorError

_SYMPTOM = re.compile(r"(.+?): (\w+) is \S+, above \S+", re.DOTALL)


def reasons(report: Report) -> list[str]:
    """The report's reasons: places and weights first, then the first case of each measure that is beyond its limit."""
    places = {f"{f.module}: {f.cause}": f"{f.module}: {f.cause.partition('; ')[0]}" for f in report.findings}
    weights = {f"{tensor.name}: {tensor.fault}" for tensor in report.tensors if tensor.fault}
    untold = {f"{tensor.name}: {tensor.fault}" for tensor in faulty(report)}
    causes = [places.get(text, text) for text in report.reasons if text in places or text in untold]
    others = [text for text in report.reasons if text not in places and text not in weights]
    return list(dict.fromkeys([*causes, *_symptoms(others)]))


def faulty(report: Report) -> list[TensorError]:
    """The weights that are not the source's and of which no finding tells."""
    told = [finding.cause for finding in report.findings]
    return [t for t in report.tensors if t.fault and not any(t.fault in cause for cause in told)]


def _symptoms(texts: list[str]) -> list[str]:
    cases: dict[str, dict[str, str]] = {}
    for text in texts:
        found = _SYMPTOM.fullmatch(text)
        measure, case = (found[2], found[1]) if found else (text, "")
        cases.setdefault(measure, {}).setdefault(case, text)
    return [first + _as_well(len(more)) for first, *more in (list(by.values()) for by in cases.values())]


def _as_well(count: int) -> str:
    return f"; also in {count} other {'case' if count == 1 else 'cases'}" if count else ""
