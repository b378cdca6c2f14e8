"""The matrix as a table of docs/runtimes.md, with the reasons below it."""

from collections.abc import Mapping

from .cases import Case
from .environments import ROOT, RUNTIMES
from .outcome import SAME, Outcome
from .record import Record

PAGE = ROOT / "docs" / "runtimes.md"
BEGIN, END = "<!-- begin: scripts/interop -->\n", "\n<!-- end: scripts/interop -->"


def write(table: str) -> None:
    """Write the table between the markers of the page."""
    text = PAGE.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n{table}{END}{rest.split(END)[1]}", encoding="utf-8")


def table(record: Record) -> str:
    """Return the table; precisions of a model whose outcomes are the same share a row."""
    ran = {name for row in record.outcomes.values() for name in row}
    runtimes = [name for name in RUNTIMES if name in ran]
    titles = [RUNTIMES[name].title for name in runtimes]
    lines = [
        "| model | task | target | precision | " + " | ".join(titles) + " |",
        "| --- " * (len(titles) + 4) + "|",
    ]
    reasons: dict[str, int] = {}
    for members in _rows(record.outcomes):
        case = members[0]
        cells = [_cell(case, record.outcomes[case].get(name), reasons) for name in runtimes]
        precisions = ", ".join(member.precision for member in members)
        lines.append(f"| {' | '.join([case.model, case.task, case.target, precisions, *cells])} |")
    notes = [f"{number}. {reason}" for reason, number in reasons.items()]
    versions = [record.versions[name] for name in runtimes if name in record.versions]
    with_versions = f"Ran with {', '.join(dict.fromkeys(versions))}."
    return "\n".join([*lines, "", *notes, *([""] if notes else []), with_versions, ""])


def _rows(outcomes: Mapping[Case, Mapping[str, Outcome]]) -> list[list[Case]]:
    rows: dict[object, list[Case]] = {}
    for case, found in sorted(outcomes.items(), key=lambda item: not item[0].source):  # real models first
        key = (case.model, case.task, case.target, tuple(sorted(found.items(), key=lambda item: item[0])))
        rows.setdefault(key, []).append(case)
    return list(rows.values())


def _cell(case: Case, outcome: Outcome | None, reasons: dict[str, int]) -> str:
    if outcome is None:
        return ""
    words = SAME.get(case.task, "same labels") if outcome.kind == "same" else outcome.kind
    if not outcome.reason:
        return words
    reason = outcome.reason.replace("|", "\\|").replace("<", "&lt;")
    return f"{words} ({reasons.setdefault(reason, len(reasons) + 1)})"
